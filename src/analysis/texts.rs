//! Texts by number.

use rustc_hash::FxHashMap;

/// Distinct texts, numbered in the order in which they come.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    numbers: FxHashMap<String, u32>,
    texts: Vec<String>,
}

impl Texts {
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        // A dictionary's keys are 32 bits wide, so there can't be more.
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        number
    }

    pub(crate) fn get(&self, number: u32) -> String {
        self.texts.get(number as usize).cloned().unwrap_or_default()
    }

    pub(crate) fn all(&self) -> &[String] {
        &self.texts
    }
}

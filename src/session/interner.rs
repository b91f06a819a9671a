//! One dictionary for a text column of many files: each file brings its own, and joining batches of different
//! dictionaries row by row would cost more than all the rest.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, Int32Array, StringArray};
use arrow_schema::ArrowError;

/// Grows with the distinct texts, not with the rows.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    ids: HashMap<Arc<str>, i32>,
    texts: Vec<Arc<str>>,
    snapshot: Option<Arc<StringArray>>,
    /// The dictionary last seen and where its entries went: batches of one row group share theirs.
    last: Option<(ArrayRef, Vec<i32>)>,
}

impl Interner {
    /// The array's keys, as keys of the common dictionary.
    pub(crate) fn intern(&mut self, array: &ArrayRef) -> Result<Int32Array, ArrowError> {
        let wrong = || ArrowError::SchemaError(format!("a text column is {}", array.data_type()));
        let array = array
            .as_any()
            .downcast_ref::<DictionaryArray<Int32Type>>()
            .ok_or_else(wrong)?;
        let known = self
            .last
            .as_ref()
            .is_some_and(|(values, _)| Arc::ptr_eq(values, array.values()));
        if !known {
            let texts = array
                .values()
                .as_any()
                .downcast_ref::<StringArray>()
                .ok_or_else(wrong)?;
            let map = texts
                .iter()
                .map(|text| self.id(text.unwrap_or_default()))
                .collect::<Result<_, _>>()?;
            self.last = Some((Arc::clone(array.values()), map));
        }
        let map = self.last.as_ref().map_or(&[][..], |(_, map)| map);
        // A null's key may be anything, also beyond the dictionary.
        Ok(array.keys().unary(|key| {
            usize::try_from(key)
                .ok()
                .and_then(|key| map.get(key))
                .copied()
                .unwrap_or(0)
        }))
    }

    /// Keys of the common dictionary with that dictionary.
    pub(crate) fn resolve(&mut self, keys: Int32Array) -> Result<ArrayRef, ArrowError> {
        let texts = &self.texts;
        let values = self
            .snapshot
            .get_or_insert_with(|| Arc::new(StringArray::from_iter_values(texts)));
        Ok(Arc::new(DictionaryArray::try_new(
            keys,
            Arc::clone(values) as ArrayRef,
        )?))
    }

    fn id(&mut self, text: &str) -> Result<i32, ArrowError> {
        if let Some(&id) = self.ids.get(text) {
            return Ok(id);
        }
        let id = i32::try_from(self.texts.len()).map_err(|_| ArrowError::DictionaryKeyOverflowError)?;
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.ids.insert(text, id);
        self.snapshot = None;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(texts: &[Option<&str>]) -> ArrayRef {
        Arc::new(texts.iter().copied().collect::<DictionaryArray<Int32Type>>())
    }

    #[test]
    fn dictionaries_become_one() {
        let mut interner = Interner::default();
        let first = interner
            .intern(&array(&[Some("a"), Some("b"), None, Some("a")]))
            .unwrap();
        let second = interner.intern(&array(&[Some("c"), Some("b")])).unwrap();
        let resolve = |interner: &mut Interner, keys: &Int32Array| -> Vec<Option<String>> {
            let array = interner.resolve(keys.clone()).unwrap();
            let array = array.as_any().downcast_ref::<DictionaryArray<Int32Type>>().unwrap();
            assert_eq!(array.values().len(), 3);
            array
                .downcast_dict::<StringArray>()
                .unwrap()
                .into_iter()
                .map(|text| text.map(str::to_owned))
                .collect()
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(resolve(&mut interner, &first), [text("a"), text("b"), None, text("a")]);
        assert_eq!(resolve(&mut interner, &second), [text("c"), text("b")]);
    }
}

//! Which ranges open a window under `--gate nvtx:NAME[@DOMAIN]`.

use wildmatch::WildMatch;

use crate::schema::ranges::RangePattern;

/// A pattern, ready to be asked at each push.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    name: WildMatch,
    domain: Option<WildMatch>,
    text: String,
}

impl Filter {
    pub(crate) fn new(pattern: &RangePattern) -> Filter {
        Filter {
            name: WildMatch::new(&pattern.name),
            domain: pattern.domain.as_deref().map(WildMatch::new),
            text: pattern.to_string(),
        }
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// `domain` is asked for only where it matters; the default one's name is empty.
    pub(crate) fn matches(&self, name: &str, domain: impl FnOnce() -> &'static str) -> bool {
        self.name.matches(name) && self.domain.as_ref().is_none_or(|pattern| pattern.matches(domain()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_domains_with_stars_and_question_marks() {
        let matches = |pattern: &str, name: &str, domain: &'static str| {
            Filter::new(&RangePattern::parse(pattern).unwrap()).matches(name, || domain)
        };
        assert!(matches("step", "step", "") && matches("step", "step", "vllm"));
        assert!(!matches("step", "steps", "") && !matches("step", "Step", ""));
        assert!(matches("step*", "step 12", "") && matches("*", "", ""));
        assert!(matches("layer?", "layer7", "") && !matches("layer?", "layer17", ""));
        assert!(matches("step@vllm", "step", "vllm") && !matches("step@vllm", "step", ""));
        assert!(matches("step@v*", "step", "vllm"));
        assert!(matches("step@", "step", "") && !matches("step@", "step", "vllm"));
        assert!(
            matches("[a]", "[a]", "") && !matches("[a]", "a", ""),
            "brackets mean themselves"
        );
    }
}

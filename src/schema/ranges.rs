//! Which NVTX ranges open a window: the `NAME[@DOMAIN]` of `--gate nvtx:NAME[@DOMAIN]`, as launcher and guest read it.

use std::fmt;

/// Before the pattern, in `--gate` and in the guest's environment.
pub const PREFIX: &str = "nvtx:";
/// Names of ranges are cut here, so that no longer pattern can match.
pub const MAX_NAME_BYTES: usize = 4096;

/// Ranges by name and domain, both with `*` and `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangePattern {
    /// Name of the range.
    pub name: String,
    /// Name of its domain; the empty one is the default domain, none is any.
    pub domain: Option<String>,
}

impl RangePattern {
    /// Reads `NAME[@DOMAIN]`. The last `@` counts.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, domain) = match text.rsplit_once('@') {
            Some((name, domain)) => (name, Some(domain.to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(format!(
                "`{PREFIX}{text}` names no range: write `nvtx:NAME` or `nvtx:NAME@DOMAIN`, such as `nvtx:step` or \
                 `nvtx:layer*@vllm`"
            ));
        }
        if name.len() > MAX_NAME_BYTES || domain.as_ref().is_some_and(|domain| domain.len() > MAX_NAME_BYTES) {
            return Err(format!(
                "the pattern behind `{PREFIX}` is too long: names of ranges and domains have {MAX_NAME_BYTES} bytes at \
                 most"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            domain,
        })
    }
}

impl fmt::Display for RangePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        self.domain
            .as_ref()
            .map_or(Ok(()), |domain| write!(formatter, "@{domain}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_domain() {
        let parsed = |text| {
            let pattern = RangePattern::parse(text).unwrap();
            assert_eq!(pattern.to_string(), text);
            (pattern.name, pattern.domain)
        };
        assert_eq!(parsed("step*"), ("step*".to_owned(), None));
        assert_eq!(parsed("step@vllm"), ("step".to_owned(), Some("vllm".to_owned())));
        assert_eq!(parsed("step@"), ("step".to_owned(), Some(String::new())));
        assert_eq!(parsed("a@b@c"), ("a@b".to_owned(), Some("c".to_owned())));
    }

    #[test]
    fn what_names_no_range_is_refused() {
        for text in ["", "@vllm", "@"] {
            let error = RangePattern::parse(text).unwrap_err();
            assert!(error.contains("names no range: write `nvtx:NAME`"), "{error}");
        }
        assert!(RangePattern::parse(&"x".repeat(MAX_NAME_BYTES)).is_ok());
        let error = RangePattern::parse(&"x".repeat(MAX_NAME_BYTES + 1)).unwrap_err();
        assert!(error.contains("4096 bytes at most"), "{error}");
    }
}

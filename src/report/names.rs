//! Kernel names and launch shapes, short enough for a table.

use crate::analysis::LaunchShape;

/// A demangled name without the return type `void` and the parameters: both say little, and the template arguments
/// between them tell kernels apart.
pub(crate) fn without_parameters(name: &str) -> &str {
    without_return_type(before_parameters(name))
}

/// What follows the last space outside of brackets: a template's name begins with its return type.
fn without_return_type(name: &str) -> &str {
    let mut open = Vec::new();
    let mut start = 0;
    for (index, character) in name.char_indices() {
        match character {
            // Within parentheses these compare: `enable_if<((8)>(0)), void>`.
            '<' | '>' if open.last() == Some(&'(') => {}
            '(' | '<' | '[' | '{' => open.push(character),
            ')' | '>' | ']' | '}' => drop(open.pop()),
            ' ' if open.is_empty() => start = index + 1,
            _ => {}
        }
    }
    if open.is_empty() { &name[start..] } else { name }
}

fn before_parameters(name: &str) -> &str {
    if !name.ends_with(')') {
        return name;
    }
    let mut depth = 0_u32;
    for (index, character) in name.char_indices().rev() {
        match character {
            ')' => depth += 1,
            '(' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            // `(anonymous namespace)` alone would leave nothing.
            return if index > 0 { &name[..index] } else { name };
        }
    }
    name
}

/// `at::native::f<c10::Half>` becomes `f<Half>`: namespaces take the room that tells kernels apart. What follows a
/// template's `>::` stays.
pub(crate) fn without_namespaces(name: &str) -> String {
    let name = name.replace("(anonymous namespace)::", "").replace("<unnamed>::", "");
    let mut text = String::with_capacity(name.len());
    let mut rest = name.as_str();
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|character: char| !is_identifier(character))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(first.len_utf8()));
        match after.strip_prefix("::") {
            Some(inner) if end > 0 && inner.starts_with(is_identifier) => rest = inner,
            _ => {
                text += word;
                rest = after;
            }
        }
    }
    text
}

fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '~')
}

/// At most `width` characters, with `…` in the place of what was left out: names differ at their ends as often as at
/// their beginnings.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let tail = kept / 3;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

/// On one line of a terminal.
pub(crate) fn printable(name: &str) -> String {
    let visible = |character: char| if character.is_control() { '?' } else { character };
    name.chars().map(visible).collect()
}

/// `128 x 256`, `16,8 x 32,4`: grid and block without trailing ones.
pub(crate) fn shape(shape: LaunchShape) -> String {
    format!("{} x {}", extent(shape.grid), extent(shape.block))
}

fn extent([x, y, z]: [i32; 3]) -> String {
    match (y, z) {
        (1, 1) => x.to_string(),
        (_, 1) => format!("{x},{y}"),
        _ => format!("{x},{y},{z}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_and_template_arguments_stay() {
        assert_eq!(
            without_parameters("void f<(int)4, g<float>>(int, void (*)(int))"),
            "f<(int)4, g<float>>"
        );
        assert_eq!(
            without_parameters("(anonymous namespace)::f(int*)"),
            "(anonymous namespace)::f"
        );
        assert_eq!(
            without_parameters("std::enable_if<(((8)>(0)))&&v::t<b>::exists, void>::type v::fused<b, 8>(b*, long)"),
            "v::fused<b, 8>"
        );
        assert_eq!(without_parameters("nvjet_sm90_tst"), "nvjet_sm90_tst");
        assert_eq!(without_parameters("(anonymous namespace)"), "(anonymous namespace)");
        assert_eq!(without_parameters("f)"), "f)");
        assert_eq!(without_parameters(""), "");
    }

    #[test]
    fn namespaces_go() {
        assert_eq!(
            without_namespaces("at::native::f<4, c10::Half, std::array<char*, 2ul>>"),
            "f<4, Half, array<char*, 2ul>>"
        );
        assert_eq!(
            without_namespaces("a::(anonymous namespace)::g<b::C<int>::D>"),
            "g<C<int>::D>"
        );
        assert_eq!(without_namespaces("::f"), "::f");
        assert_eq!(without_namespaces("a::"), "a::");
        assert_eq!(without_namespaces("größe::kern<é>"), "kern<é>");
        assert_eq!(without_namespaces("f<&(g::h)>"), "f<&(h)>");
        assert_eq!(without_namespaces(""), "");
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("abcdefghij", 7), "abcd…ij");
        assert_eq!(shortened("ééééé", 4), "éé…é");
        assert_eq!(shortened("abc", 1), "…");
        assert_eq!(shortened("abc", 0), "…");
    }

    #[test]
    fn shapes_lose_trailing_ones() {
        assert_eq!(
            shape(LaunchShape {
                grid: [128, 1, 1],
                block: [32, 4, 1]
            }),
            "128 x 32,4"
        );
        assert_eq!(
            shape(LaunchShape {
                grid: [1, 1, 2],
                block: [1, 1, 1]
            }),
            "1,1,2 x 1"
        );
    }
}

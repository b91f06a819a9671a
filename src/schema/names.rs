//! Kernel names: demangled and shortened in one way, whoever recorded them.

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

/// Longer mangled names are not demangled: the demangler's time and depth grow with them.
const MAX_DEMANGLE_BYTES: usize = 8 * 1024;
const MAX_DEMANGLED_BYTES: usize = 64 * 1024;
const MAX_DEPTH: u32 = 160;

/// A kernel's name in its three forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// As the module has it.
    pub mangled: String,
    /// Demangled; the mangled one where it does not demangle.
    pub demangled: String,
    /// Function name without namespaces, template arguments and parameters.
    pub short: String,
}

impl Name {
    /// From the name that the module has.
    pub fn new(mangled: String) -> Name {
        let demangled = demangle(&mangled).unwrap_or_else(|| mangled.clone());
        let short = short_name(&demangled).to_owned();
        Name {
            mangled,
            demangled,
            short,
        }
    }
}

/// Demangles an Itanium C++ name; `None` where it is none or asks too much.
fn demangle(mangled: &str) -> Option<String> {
    if !mangled.starts_with("_Z") || mangled.len() > MAX_DEMANGLE_BYTES {
        return None;
    }
    // A crafted name could trip an assertion of the demangler; the name then stays as it is.
    std::panic::catch_unwind(|| {
        let parse = ParseOptions::default().recursion_limit(MAX_DEPTH);
        // The compiler's suffixes of clones (`.constprop.0`) are no part of the name.
        let plain = mangled.split('.').next()?;
        let symbol = Symbol::new_with_options(plain, &parse).ok()?;
        let options = DemangleOptions::default().recursion_limit(MAX_DEPTH);
        let mut text = Bounded(String::new());
        symbol.structured_demangle(&mut text, &options).ok()?;
        Some(text.0)
    })
    .ok()
    .flatten()
    .filter(|text| !text.is_empty())
}

/// Refuses to grow past the bound: substitutions can make a short name explode.
struct Bounded(String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > MAX_DEMANGLED_BYTES {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// The function's own name: `void at::native::foo<float>(int)` → `foo`.
pub fn short_name(name: &str) -> &str {
    let mut open = Vec::new();
    let mut start = 0;
    let mut end = name.len();
    let mut previous = ' ';
    for (index, character) in name.char_indices() {
        match character {
            // `(anonymous namespace)::` opens a name, it does not end one.
            '(' if open.is_empty() && name[index..].starts_with("(anonymous namespace)") => open.push(character),
            // Within parentheses these compare: `enable_if<((8)>(0)), void>`.
            '<' | '>' if open.last() == Some(&'(') => {}
            '(' | '<' | '[' | '{' => {
                if open.is_empty() && index > start {
                    end = end.min(index);
                    if character == '(' {
                        break;
                    }
                }
                open.push(character);
            }
            '>' if previous == '-' => {}
            ')' | '>' | ']' | '}' => {
                let opened = open.pop();
                if opened.is_none() {
                    return name;
                }
            }
            ' ' | ':' if open.is_empty() => {
                start = index + 1;
                end = name.len();
            }
            _ => {}
        }
        previous = character;
    }
    match name.get(start..end) {
        Some(short) if !short.is_empty() => short,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_the_functions_own() {
        for (name, short) in [
            (
                "nvjet_sm90_tst_128x8_64x12_4x1_v_bz_TNT",
                "nvjet_sm90_tst_128x8_64x12_4x1_v_bz_TNT",
            ),
            (
                "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>(int, float)",
                "vectorized_elementwise_kernel",
            ),
            ("rms_norm(float*, int)", "rms_norm"),
            ("(anonymous namespace)::softmax<float>(int)", "softmax"),
            (
                "void (anonymous namespace)::elementwise_kernel_with_index<int>(int)",
                "elementwise_kernel_with_index",
            ),
            (
                "void cutlass::device_kernel<flash::enable_sm90<flash::Fwd<(bool)1>>>(flash::Fwd::Params)",
                "device_kernel",
            ),
            (
                "std::enable_if<(((8)>(0)))&&vllm::_typeConvert<c10::BFloat16>::exists, void>::type \
                 vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8, true>(c10::BFloat16*, long)",
                "fused_add_rms_norm_kernel",
            ),
            ("void f<(a)((x<y))>(int)", "f"),
            ("", ""),
            ("triton_poi_fused_add_0", "triton_poi_fused_add_0"),
        ] {
            assert_eq!(short_name(name), short, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_has_a_short_one_inside_it(text in ".{0,200}") {
            proptest::prop_assert!(text.contains(short_name(&text)));
        }
    }
}

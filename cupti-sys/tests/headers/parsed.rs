//! NVIDIA's headers as libclang understands them: bindgen reads them, and its output is taken apart here.

use crate::wheels;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use syn::{Expr, Item, Lit, Stmt, Type};

/// What the headers of a release declare.
#[derive(Default)]
pub(crate) struct Header {
    pub(crate) constants: HashMap<String, u64>,
    pub(crate) structs: HashMap<String, Struct>,
    /// Sizes of each function's arguments.
    pub(crate) functions: HashMap<String, Vec<usize>>,
}

#[derive(Default)]
pub(crate) struct Struct {
    pub(crate) size: usize,
    /// Offset and size of each field.
    pub(crate) fields: HashMap<String, (usize, usize)>,
}

const INCLUDES: &str = "#include <stdbool.h>
#include <cupti_version.h>
#include <cupti_result.h>
#include <cupti_activity.h>
#include <cupti_callbacks.h>
#include <cupti_driver_cbid.h>
#include <cupti_runtime_cbid.h>
";

/// Of counters; since 12.6.
const COUNTERS_INCLUDES: &str = "#include <cupti_target.h>
#include <cupti_profiler_target.h>
#include <cupti_profiler_host.h>
#include <cupti_pmsampling.h>
";

/// Reads the headers of a CUPTI release.
pub(crate) fn header(release: &str) -> Header {
    let minor = release.rsplit_once('.').expect("a release has three numbers").0;
    let runtime = if release.starts_with("12.") {
        "cuda_runtime"
    } else {
        "cu13"
    };
    let runtime = wheels::wheel(&format!("runtime-{minor}"))
        .join("nvidia")
        .join(runtime)
        .join("include");
    find_libclang();
    // CUPTI includes the runtime's builtin_types.h without need; that would want headers of the compiler's wheel.
    let shim = tempfile::tempdir().expect("a temporary folder");
    // cupti_profiler_host.h includes one of C++.
    for header in ["builtin_types.h", "string"] {
        std::fs::write(shim.path().join(header), "").expect("the shim is written");
    }

    let include = |folder: &Path| format!("-I{}", folder.display());
    let arguments = [
        include(shim.path()),
        include(&wheels::cupti(release).join("include")),
        include(&runtime),
    ];
    let has_counters = wheels::cupti(release).join("include/cupti_pmsampling.h").is_file();
    let counters = if has_counters { COUNTERS_INCLUDES } else { "" };
    let bindings = bindgen::Builder::default()
        .header_contents("all.h", &format!("{INCLUDES}{counters}"))
        .clang_args(arguments)
        .clang_args(["-isystem", &compiler_include()])
        .allowlist_type("CUpti_.*")
        .allowlist_var("CUPTI_.*")
        .allowlist_function("cupti.*")
        .prepend_enum_name(false)
        .generate_comments(false)
        .formatter(bindgen::Formatter::None)
        .generate()
        .unwrap_or_else(|error| panic!("failed to read the headers of CUPTI {release}: {error}"));
    take_apart(&syn::parse_file(&bindings.to_string()).expect("bindgen writes Rust"))
}

/// Points bindgen to the wheel's libclang, unless the environment names another.
fn find_libclang() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("LIBCLANG_PATH").is_none() {
            let file = find(&wheels::wheel("libclang"), "libclang.so").expect("the wheel has libclang.so");
            // SAFETY: every thread of this program that reads the environment through C waits for this first.
            unsafe { std::env::set_var("LIBCLANG_PATH", file.parent().expect("a file has a folder")) };
        }
    });
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find_map(|path| match path.is_dir() {
            true => find(&path, name),
            false => path.file_name().is_some_and(|file| file == name).then_some(path),
        })
}

/// Folder of stddef.h and the like, which libclang's wheel lacks.
fn compiler_include() -> String {
    let output = Command::new("gcc")
        .arg("-print-file-name=include")
        .output()
        .expect("gcc runs");
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

fn take_apart(file: &syn::File) -> Header {
    let mut header = Header::default();
    let mut sizes = Sizes::default();
    let mut offsets = HashMap::new();
    for item in &file.items {
        match item {
            Item::Const(item) if item.ident == "_" => read_assertions(&item.expr, &mut sizes.structs, &mut offsets),
            Item::Const(item) => {
                header
                    .constants
                    .extend(number(&item.expr).map(|value| (item.ident.to_string(), value)));
            }
            Item::Type(item) => {
                sizes.aliases.insert(item.ident.to_string(), (*item.ty).clone());
            }
            // `use self::X_enum as X;`
            Item::Use(syn::ItemUse {
                tree: syn::UseTree::Path(path),
                ..
            }) => {
                let syn::UseTree::Rename(rename) = &*path.tree else {
                    continue;
                };
                let target = syn::parse_str(&rename.ident.to_string()).expect("a name is a type");
                sizes.aliases.insert(rename.rename.to_string(), target);
            }
            _ => {}
        }
    }
    for item in &file.items {
        match item {
            // Those of cuda.h aside, which come along.
            Item::Struct(item) if item.ident.to_string().starts_with("CUpti_") => {
                let name = item.ident.to_string();
                let Some(&size) = sizes.structs.get(&name) else {
                    continue;
                };
                let field = |field: &syn::Field| {
                    // bindgen's way around Rust's keywords.
                    let c_name = field.ident.as_ref()?.to_string().trim_end_matches('_').to_string();
                    let offset = *offsets.get(&format!("{name}::{}", field.ident.as_ref()?))?;
                    Some((c_name, (offset, sizes.of(&field.ty))))
                };
                let fields = item.fields.iter().filter_map(field).collect();
                header.structs.insert(name, Struct { size, fields });
            }
            Item::ForeignMod(item) => {
                for item in &item.items {
                    let syn::ForeignItem::Fn(function) = item else { continue };
                    let argument = |argument: &syn::FnArg| match argument {
                        syn::FnArg::Typed(argument) => sizes.of(&argument.ty),
                        syn::FnArg::Receiver(_) => unreachable!("C has no methods"),
                    };
                    let arguments = function.sig.inputs.iter().map(argument).collect();
                    header.functions.insert(function.sig.ident.to_string(), arguments);
                }
            }
            _ => {}
        }
    }
    header
}

/// bindgen's layout tests, `["Size of X"][size_of::<X>() - 8usize];`: the numbers are libclang's.
fn read_assertions(expr: &Expr, sizes: &mut HashMap<String, usize>, offsets: &mut HashMap<String, usize>) {
    let Expr::Block(block) = expr else { return };
    for statement in &block.block.stmts {
        let Stmt::Expr(Expr::Index(index), _) = statement else {
            continue;
        };
        let (Expr::Array(text), Expr::Binary(difference)) = (&*index.expr, &*index.index) else {
            continue;
        };
        let Some(Expr::Lit(syn::ExprLit {
            lit: Lit::Str(text), ..
        })) = text.elems.first()
        else {
            continue;
        };
        let (Some(value), text) = (number(&difference.right), text.value()) else {
            continue;
        };
        if let Some(name) = text.strip_prefix("Size of ") {
            sizes.insert(name.to_string(), value as usize);
        } else if let Some(name) = text.strip_prefix("Offset of field: ") {
            offsets.insert(name.to_string(), value as usize);
        }
    }
}

fn number(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Lit(syn::ExprLit {
            lit: Lit::Int(value), ..
        }) => value.base10_parse().ok(),
        _ => None,
    }
}

#[derive(Default)]
struct Sizes {
    structs: HashMap<String, usize>,
    aliases: HashMap<String, Type>,
}

impl Sizes {
    fn of(&self, ty: &Type) -> usize {
        match ty {
            Type::Ptr(_) | Type::BareFn(_) => size_of::<usize>(),
            Type::Array(array) => self.of(&array.elem) * number(&array.len).expect("a length") as usize,
            Type::Path(path) => {
                let name = path
                    .path
                    .segments
                    .last()
                    .expect("a path has segments")
                    .ident
                    .to_string();
                match name.as_str() {
                    "u8" | "i8" | "bool" | "c_char" | "c_uchar" => 1,
                    "u16" | "i16" | "c_short" | "c_ushort" => 2,
                    "u32" | "i32" | "f32" | "c_int" | "c_uint" => 4,
                    // An `Option` is one of a function.
                    "u64" | "i64" | "f64" | "usize" | "c_long" | "c_ulong" | "c_longlong" | "c_ulonglong"
                    | "Option" => 8,
                    name => match (self.structs.get(name), self.aliases.get(name)) {
                        (Some(size), _) => *size,
                        (None, Some(alias)) => self.of(alias),
                        (None, None) => panic!("size of `{name}` unknown"),
                    },
                }
            }
            other => panic!("size of {other:?} unknown"),
        }
    }
}

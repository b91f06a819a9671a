//! Where settings come from: the command line, the environment, the project's file, the user's file, the flavor, in this
//! order; and the files themselves.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Value};

use super::flavors::Flavor;
use super::knobs::{KNOBS, Knob, Knobs};

const FILE: &str = "config.toml";

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The flavor's default.
    Flavor(&'static str),
    /// A config file.
    File(PathBuf),
    /// A variable.
    Environment(String),
    /// An option.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flavor(name) => write!(formatter, "flavor {name}"),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Environment(name) => write!(formatter, "${name}"),
            Self::CommandLine => write!(formatter, "command line"),
        }
    }
}

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that its setting does not take.
    #[error("{source_of}{name}: {reason}")]
    Value {
        /// Where it stands, ready to print.
        source_of: String,
        /// Setting.
        name: String,
        /// What was expected.
        reason: String,
    },
    /// A file that is no TOML.
    #[error("`{}` is no TOML: {reason}", .path.display())]
    Syntax {
        /// File.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A file that can't be read or written.
    #[error("{action} `{}`: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// File.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no home folder.
    #[error("neither `XDG_CONFIG_HOME` nor `HOME` is set, so there is no place for a user's settings")]
    NoHome,
}

/// Values that were set, each with who set it last.
pub type Values = BTreeMap<&'static str, (String, Source)>;

/// What the settings are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The project's.
    pub project: PathBuf,
    /// The user's; none without a home folder.
    pub user: Option<PathBuf>,
}

impl Files {
    /// `.colonel/config.toml` below `folder`, and `colonel/config.toml` in the user's config folder.
    pub fn of(folder: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        Self {
            project: folder.join(".colonel").join(FILE),
            user: home.map(|home| home.join("colonel").join(FILE)),
        }
    }

    /// Those of this process.
    pub fn here() -> Self {
        Self::of(&env::current_dir().unwrap_or_default(), |name| env::var_os(name))
    }
}

/// What holds for a run: every layer over the one below it.
pub fn resolve(
    flavor: &Flavor,
    files: &Files,
    variable: impl Fn(&str) -> Option<OsString>,
    options: &[(&'static str, String)],
) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    for (name, value) in flavor.knobs {
        values.insert(name, ((*value).to_owned(), Source::Flavor(flavor.name)));
    }
    for path in files.user.iter().chain([&files.project]) {
        for (knob, value) in read_file(path)? {
            values.insert(knob.name, (value, Source::File(path.clone())));
        }
    }
    for knob in KNOBS {
        let name = knob.variable();
        if let Some(value) = variable(&name).filter(|value| !value.is_empty()) {
            let value = value.to_string_lossy().into_owned();
            knob.check(&value).map_err(|reason| ConfigError::Value {
                source_of: "$".to_owned(),
                name: name.clone(),
                reason,
            })?;
            values.insert(knob.name, (value, Source::Environment(name)));
        }
    }
    for (name, value) in options {
        values.insert(name, (value.clone(), Source::CommandLine));
    }
    Ok(values)
}

/// The values, typed.
pub fn typed(values: &Values) -> Result<Knobs, ConfigError> {
    let mut knobs = Knobs::default();
    for (name, (value, source)) in values {
        let set = Knob::named(name).and_then(|knob| knob.set(&mut knobs, value));
        set.map_err(|reason| ConfigError::Value {
            source_of: format!("{source}: "),
            name: (*name).to_owned(),
            reason,
        })?;
    }
    Ok(knobs)
}

/// Writes a setting into a file, which is made where it is not there; comments stay.
pub fn write(path: &Path, name: &str, value: &str) -> Result<(), ConfigError> {
    let refuse = |reason| ConfigError::Value {
        source_of: String::new(),
        name: name.to_owned(),
        reason,
    };
    let knob = Knob::named(name).map_err(refuse)?;
    knob.check(value).map_err(refuse)?;
    let mut document = document(path)?;
    document[knob.name] = toml_edit::value(value);
    let failed = |source| ConfigError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, document.to_string()).map_err(failed)
}

fn document(path: &Path) -> Result<DocumentMut, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(source) => {
            return Err(ConfigError::Io {
                action: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    text.parse().map_err(|error: toml_edit::TomlError| ConfigError::Syntax {
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })
}

fn read_file(path: &Path) -> Result<Vec<(&'static Knob, String)>, ConfigError> {
    let document = document(path)?;
    let read = |(name, item): (&str, &Item)| {
        let refuse = |reason| ConfigError::Value {
            source_of: format!("`{}`: ", path.display()),
            name: name.to_owned(),
            reason,
        };
        let knob = Knob::named(name).map_err(&refuse)?;
        let value = as_text(item).ok_or_else(|| refuse(format!("expected {}, as text, number or list", knob.takes)))?;
        knob.check(&value).map_err(refuse)?;
        Ok((knob, value))
    };
    document.iter().map(read).collect()
}

/// `"a"`, `20`, `true` and `["a", "b"]`, as the command line takes them.
fn as_text(item: &Item) -> Option<String> {
    fn one(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.value().clone()),
            Value::Integer(number) => Some(number.value().to_string()),
            Value::Boolean(flag) => Some(flag.value().to_string()),
            _ => None,
        }
    }
    match item.as_value()? {
        Value::Array(list) => {
            let words: Option<Vec<String>> = list.iter().map(one).collect();
            words.map(|words| words.join(","))
        }
        value => one(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::flavors::GENERIC;

    fn files(folder: &Path) -> Files {
        let home = folder.join("home");
        Files::of(folder, |name| (name == "HOME").then(|| home.clone().into_os_string()))
    }

    #[test]
    fn the_nearer_layer_wins() {
        let temp = tempfile::tempdir().unwrap();
        let files = files(temp.path());
        let user = files.user.as_deref().unwrap();
        assert!(user.ends_with("home/.config/colonel/config.toml"));
        for (path, name, value) in [
            (user, "ncu_set", "basic"),
            (user, "ncu_launch_count", "5"),
            (user, "ncu_launch_skip", "6"),
            (&files.project, "ncu_set", "full"),
            (&files.project, "ncu_launch_count", "7"),
        ] {
            write(path, name, value).unwrap();
        }
        let variable = |name: &str| (name == "COLONEL_NCU_LAUNCH_COUNT").then(|| "8".into());
        let vllm = Flavor::named("vllm").unwrap();
        let values = resolve(vllm, &files, variable, &[("ncu_replay_mode", "range".to_owned())]).unwrap();
        let knobs = typed(&values).unwrap();
        assert_eq!(knobs.ncu.set.as_deref(), Some("full"));
        assert_eq!((knobs.ncu.launch_count, knobs.ncu.launch_skip), (Some(8), Some(6)));
        assert_eq!(knobs.ncu.sections, ["SpeedOfLight"]);
        assert_eq!(values["ncu_replay_mode"].1.to_string(), "command line");
        assert_eq!(values["ncu_launch_count"].1.to_string(), "$COLONEL_NCU_LAUNCH_COUNT");
        assert_eq!(values["ncu_section"].1, Source::Flavor("vllm"));
    }

    #[test]
    fn files_take_toml_of_every_kind_and_keep_comments() {
        let temp = tempfile::tempdir().unwrap();
        let files = files(temp.path());
        fs::create_dir(temp.path().join(".colonel")).unwrap();
        let text = "# ours\nncu_section = [\"A\", \"B\"]\nncu_launch_count = 20\nnsys_enable_nvtx = true\n";
        fs::write(&files.project, text).unwrap();
        write(&files.project, "ncu_set", "full").unwrap();
        let written = fs::read_to_string(&files.project).unwrap();
        assert!(
            written.starts_with("# ours\n") && written.ends_with("ncu_set = \"full\"\n"),
            "{written}"
        );
        let knobs = typed(&resolve(&GENERIC, &files, |_| None, &[]).unwrap()).unwrap();
        assert_eq!(knobs.ncu.sections, ["A", "B"]);
        assert_eq!((knobs.ncu.launch_count, knobs.nsys.enable_nvtx), (Some(20), Some(true)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let temp = tempfile::tempdir().unwrap();
        let files = files(temp.path());
        fs::create_dir(temp.path().join(".colonel")).unwrap();
        let told = |text: &str| {
            fs::write(&files.project, text).unwrap();
            let error = resolve(&GENERIC, &files, |_| None, &[]).unwrap_err().to_string();
            error.replace(&temp.path().display().to_string(), "")
        };
        insta::assert_snapshot!(told("ncu_replay_mode = \"twice\""), @"`/.colonel/config.toml`: ncu_replay_mode: unknown replay mode `twice` (known: kernel, application, range, app-range)");
        insta::assert_snapshot!(told("ncu_launch_count = 1.5"), @"`/.colonel/config.toml`: ncu_launch_count: expected N|all, as text, number or list");
        assert!(told("ncu_sets = 1").contains("unknown setting `ncu_sets`"));
        insta::assert_snapshot!(told("ncu_set = "), @r"
        `/.colonel/config.toml` is no TOML: TOML parse error at line 1, column 11
          |
        1 | ncu_set = 
          |           ^
        string values must be quoted, expected literal string
        ");
        fs::write(&files.project, "").unwrap();
        let variable = |name: &str| (name == "COLONEL_NSYS_CAPTURE_RANGE").then(|| "always".into());
        let error = resolve(&GENERIC, &files, variable, &[]).unwrap_err();
        insta::assert_snapshot!(error, @"$COLONEL_NSYS_CAPTURE_RANGE: unknown capture range `always` (known: none, cudaProfilerApi, nvtx)");
    }
}

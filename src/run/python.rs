//! What a python has installed, told by itself in one short run. It looks the packages up and imports none of them: that
//! would take seconds, and could start CUDA. 65 ms beside vLLM 0.26.0 (median of 25, Python 3.12, 2 cores): 12 are
//! Python's own start, 50 the import of importlib.metadata.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::{locate, shebang};
use super::probe::output_of;

/// Prints a [`Python`]. `-c` puts the current folder in front of the path, a script its own: neither is where packages are
/// installed, so it is taken off.
const ASK: &str = r#"
import json, os, sys
from importlib import metadata, util
if sys.path[0] == "":
    del sys.path[0]
packages = {}
for name in sys.argv[1].split(","):
    try:
        packages[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
variables = ""
vllm = util.find_spec("vllm")
for folder in vllm and vllm.submodule_search_locations or []:
    with open(os.path.join(folder, "envs.py"), encoding="utf-8") as file:
        variables += file.read()
known = [name for name in sys.argv[2].split(",") if '"%s"' % name in variables]
release = sys.version.split()[0]
print(json.dumps({"path": sys.executable, "release": release, "packages": packages, "vllm_variables": known}))
"#;

/// A python and what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// Its file.
    pub path: String,
    /// Its version.
    pub release: String,
    /// Versions of the packages asked for, of those that are there.
    pub packages: BTreeMap<String, String>,
    /// The environment variables asked for, of those that its vLLM knows.
    #[serde(skip_serializing)]
    pub vllm_variables: Vec<String>,
}

/// What a python is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The versions of these packages.
    pub(crate) packages: &'a [&'a str],
    /// Whether its vLLM knows these environment variables.
    pub(crate) vllm_variables: &'a [&'a str],
    /// How long the answer may take.
    pub(crate) patience: Duration,
}

impl Question<'_> {
    /// The answer, if one comes.
    pub(crate) fn ask(&self, python: &OsStr, cwd: Option<&Path>) -> Option<Python> {
        let mut command = Command::new(python);
        command
            .args(["-c", ASK])
            .arg(self.packages.join(","))
            .arg(self.vllm_variables.join(","));
        if let Some(cwd) = cwd {
            command.current_dir(cwd);
        }
        let said = output_of(&mut command, self.patience)?;
        // What a sitecustomize prints comes before it.
        serde_json::from_str(said.lines().last()?).ok()
    }
}

/// The python that runs a command: its first word, or what the `#!` line of that script names, as in `vllm serve`.
/// `None` where it is started by way of a shell, `uv run` and the like.
pub(crate) fn interpreter(program: &OsStr, cwd: Option<&Path>, path: Option<&OsStr>) -> Option<OsString> {
    if is_python(Path::new(program)) {
        return Some(program.to_owned());
    }
    // `#!/usr/bin/env python3` names it second.
    let words = shebang(&locate(program, cwd, path)?);
    words
        .into_iter()
        .find(|word| is_python(word))
        .map(PathBuf::into_os_string)
}

/// `python`, `python3`, `python3.12`, `python3.13t`, and nothing else: what is asked is run.
fn is_python(program: &Path) -> bool {
    let name = program.file_name().map(OsStr::as_encoded_bytes);
    name.and_then(|name| name.strip_prefix(b"python")).is_some_and(|rest| {
        let version = rest.strip_suffix(b"t").unwrap_or(rest);
        version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn only_a_python_is_asked() {
        for (name, expected) in [
            ("python", true),
            ("/usr/bin/python3.12", true),
            ("python3.13t", true),
            ("./python_deploy.sh", false),
            ("python3-config", false),
            ("pythonic", false),
        ] {
            assert_eq!(is_python(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn the_interpreter_of_a_command_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().as_os_str();
        for (line, expected) in [
            ("#!/venv/bin/python3.12", Some("/venv/bin/python3.12")),
            ("#!/usr/bin/env python3", Some("python3")),
            ("#!/usr/bin/env -S PYTHONPATH=/x python3 -u", Some("python3")),
            ("#!/bin/sh", None),
            ("", None),
        ] {
            script(temp.path(), "vllm", &format!("{line}\n"));
            let found = |program: &str, cwd| interpreter(program.as_ref(), cwd, Some(path));
            assert_eq!(found("vllm", None), expected.map(OsString::from), "{line}");
            assert_eq!(
                found("./vllm", Some(temp.path())),
                expected.map(OsString::from),
                "{line}"
            );
        }
        for program in ["python", "/venv/bin/python3", "../bin/python3.12"] {
            assert_eq!(
                interpreter(program.as_ref(), None, None).as_deref(),
                Some(OsStr::new(program))
            );
        }
        assert_eq!(interpreter("missing".as_ref(), None, Some(path)), None);
    }

    /// The real `python3` of this machine, with packages of the test's own.
    #[test]
    fn a_python_tells_versions_and_what_its_vllm_knows() {
        let temp = tempfile::tempdir().unwrap();
        let site = temp.path().join("site");
        for folder in ["vllm", "vllm-0.11.0.dist-info"] {
            fs::create_dir_all(site.join(folder)).unwrap();
        }
        fs::write(site.join("vllm/__init__.py"), "raise SystemExit('imported')").unwrap();
        let known =
            "environment_variables = {\n    \"VLLM_USE_V1\": lambda: 1,\n    \"VLLM_USE_V2_MODEL_RUNNER\": 0,\n}\n";
        fs::write(site.join("vllm/envs.py"), known).unwrap();
        let metadata = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.11.0\n";
        fs::write(site.join("vllm-0.11.0.dist-info/METADATA"), metadata).unwrap();
        // In front of the real python: a shim, as pyenv's.
        let shim = format!(
            "#!/bin/sh\necho shim\nPYTHONPATH={} exec python3 \"$@\"\n",
            site.display()
        );
        let shim = script(temp.path(), "python", &shim);

        let question = Question {
            packages: &["vllm", "no-such-package"],
            vllm_variables: &["VLLM_USE_V1", "VLLM_USE_V2"],
            patience: Duration::from_secs(60),
        };
        let python = question.ask(shim.as_os_str(), None).unwrap();
        assert_eq!(
            python.packages,
            BTreeMap::from([("vllm".to_owned(), "0.11.0".to_owned())])
        );
        assert_eq!(python.vllm_variables, ["VLLM_USE_V1"]);
        assert!(python.release.starts_with('3') && !python.path.is_empty(), "{python:?}");

        // A folder `vllm` beside the caller is not what a script imports.
        fs::write(temp.path().join("python"), "#!/bin/sh\nexec python3 \"$@\"\n").unwrap();
        let python = question.ask(OsStr::new("../python"), Some(&site)).unwrap();
        assert_eq!(
            (python.packages.len(), python.vllm_variables.len()),
            (0, 0),
            "{python:?}"
        );
    }
}

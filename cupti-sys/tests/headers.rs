//! Compares our layouts, constants and functions with NVIDIA's own headers, of six releases of CUPTI.
//!
//! Run: tests/cupti/fetch_wheels.sh && cargo test -p cupti-sys --features bindgen --test headers
//! Needs gcc (for its stddef.h) and the network once; libclang comes as a wheel. Nothing generated is kept.

#[path = "headers/parsed.rs"]
mod parsed;
mod wheels;

use cupti_sys::counters::params::SHAPES;
use cupti_sys::functions::Functions;
use cupti_sys::layouts::{self, LAYOUTS, Layout};
use cupti_sys::records::{CallbackData, ResourceData, SubscriberParams};
use cupti_sys::{constants, records::Field};
use parsed::{Header, Struct};
use std::mem::offset_of;

#[test]
fn cupti_12_4() {
    check("12.4.127", 22);
}

#[test]
fn cupti_12_8() {
    check("12.8.90", 26);
}

#[test]
fn cupti_12_9() {
    check("12.9.79", 28);
}

#[test]
fn cupti_13_0() {
    check("13.0.85", 130_001);
}

#[test]
fn cupti_13_3() {
    check("13.3.75", 130_301);
}

#[test]
fn cupti_13_5() {
    check("13.5.25", 130_500);
}

/// The releases in between: in which of them each change came.
#[test]
#[ignore = "needs tests/cupti/fetch_wheels.sh --all"]
fn the_releases_in_between() {
    let releases = [
        ("12.5.82", 23),
        ("12.6.80", 24),
        ("12.9.19", 27),
        ("13.1.115", 130_101),
        ("13.2.23", 130_200),
        ("13.2.86", 130_202),
        ("13.4.92", 130_401),
    ];
    for (release, api_version) in releases {
        check(release, api_version);
    }
}

const NEWEST: u64 = constants::API_VERSION_13_5 as u64;

fn check(release: &str, api_version: u32) {
    let header = parsed::header(release);
    assert_eq!(header.constants.get("CUPTI_API_VERSION"), Some(&u64::from(api_version)));

    let mut findings = check_constants(&header, u64::from(api_version));
    for layout in LAYOUTS {
        findings.extend(check_layout(&header, layout, api_version));
    }
    findings.extend(check_functions(&header, u64::from(api_version)));
    findings.extend(check_callbacks(&header, api_version));
    findings.extend(check_parameters(&header, api_version));
    assert!(findings.is_empty(), "CUPTI {release}:\n{}", findings.join("\n"));
}

/// Ours have the header's values; the newest header has all of ours, and each of its kinds is one of ours.
fn check_constants(header: &Header, api_version: u64) -> Vec<String> {
    let mut findings = Vec::new();
    let mut compared = 0;
    for (name, value) in constants::ALL {
        match header.constants.get(*name) {
            Some(theirs) if *theirs == u64::from(*value) => compared += 1,
            Some(theirs) => findings.push(format!("{name} is {value}, theirs {theirs}")),
            None if api_version < NEWEST => {}
            None => findings.push(format!("{name} is not in the newest header")),
        }
    }
    // 12.4 lacks only what came later.
    assert!(
        compared * 10 >= constants::ALL.len() * 8,
        "only {compared} constants compared"
    );
    let kinds = header
        .constants
        .keys()
        .filter(|name| name.starts_with("CUPTI_ACTIVITY_KIND_"));
    for name in kinds.filter(|name| !name.ends_with("_FORCE_INT") && !name.ends_with("_COUNT")) {
        if !constants::KINDS.iter().any(|(ours, _)| ours == name) {
            findings.push(format!("{name} is not among ours"));
        }
    }
    findings
}

/// The structure that we expect in this version is there, is the newest there, and has our fields where we read them.
fn check_layout(header: &Header, layout: &Layout, api_version: u32) -> Vec<String> {
    let mut findings = Vec::new();
    for later in layout.versions.iter().filter(|version| version.since > api_version) {
        if header.structs.contains_key(&activity(later.c_name)) {
            findings.push(format!("{} is there already", later.c_name));
        }
    }
    let Some(version) = layouts::version(layout.kind, api_version) else {
        return findings;
    };
    let Some(theirs) = header.structs.get(&activity(version.c_name)) else {
        return vec![format!("{} is not there", version.c_name)];
    };
    if theirs.size != version.size {
        findings.push(format!(
            "{} has {} bytes, theirs {}",
            version.c_name, version.size, theirs.size
        ));
    }
    if !layout.fields.is_empty() {
        findings.extend(check_fields(theirs, version.c_name, layout.fields, api_version));
    }
    findings
}

fn check_fields(theirs: &Struct, name: &str, ours: &[Field], api_version: u32) -> Vec<String> {
    let mut findings = Vec::new();
    for field in ours {
        let expected = (field.since <= api_version).then_some((field.offset, field.size));
        let found = theirs.fields.get(field.c_name).copied();
        if found != expected {
            findings.push(format!(
                "{name}.{}: (offset, size) {expected:?}, theirs {found:?}",
                field.c_name
            ));
        }
    }
    let filler = |name: &str| name.starts_with("pad") || name.starts_with("reserved");
    for name_of_theirs in theirs.fields.keys().filter(|name| !filler(name)) {
        if !ours.iter().any(|field| field.c_name == *name_of_theirs) {
            findings.push(format!("{name}.{name_of_theirs} is not among our fields"));
        }
    }
    findings
}

/// Functions that the header has take arguments of the sizes that we pass; the newest header has all of them.
fn check_functions(header: &Header, api_version: u64) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, ours) in Functions::SIGNATURES {
        match header.functions.get(*name) {
            Some(theirs) if theirs == ours => {}
            Some(theirs) => findings.push(format!("{name} takes arguments of {ours:?} bytes, theirs {theirs:?}")),
            None if api_version < NEWEST => {}
            None => findings.push(format!("{name} is not in the newest header")),
        }
    }
    findings
}

fn check_callbacks(header: &Header, api_version: u32) -> Vec<String> {
    macro_rules! fields {
        ($Struct:ident: $($field:ident $c_name:literal),*) => { vec![$( ($c_name, offset_of!($Struct, $field)) ),*] };
    }
    let mut expected = vec![
        (
            "CUpti_CallbackData",
            size_of::<CallbackData>(),
            fields!(CallbackData: callback_site "callbackSite", function_name "functionName",
                function_params "functionParams", function_return_value "functionReturnValue",
                symbol_name "symbolName", context "context", context_uid "contextUid",
                correlation_data "correlationData", correlation_id "correlationId"),
        ),
        (
            "CUpti_ResourceData",
            size_of::<ResourceData>(),
            fields!(ResourceData: context "context", stream "resourceHandle",
                resource_descriptor "resourceDescriptor"),
        ),
    ];
    if api_version >= constants::API_VERSION_13_0 {
        let mut fields = fields!(SubscriberParams: struct_size "structSize", subscriber_name "subscriberName",
            old_subscriber_name "oldSubscriberName", old_subscriber_size "oldSubscriberSize",
            allow_multiple_subscribers "allowMultipleSubscribers");
        if api_version < constants::API_VERSION_13_2 {
            fields.pop();
        }
        expected.push(("CUpti_SubscriberParams", SubscriberParams::size(api_version), fields));
    }
    let mut findings = Vec::new();
    for (name, size, fields) in expected {
        let theirs = &header.structs[name];
        if theirs.size != size {
            findings.push(format!("{name} has {size} bytes, theirs {}", theirs.size));
        }
        for (field, offset) in fields {
            let found = theirs.fields.get(field).map(|(offset, _)| *offset);
            if found != Some(offset) {
                findings.push(format!("{name}.{field} at {offset}, theirs {found:?}"));
            }
        }
    }
    findings
}

/// Parameter structures of the counters: ours are the beginning of theirs, which grow at the end.
fn check_parameters(header: &Header, api_version: u32) -> Vec<String> {
    let mut findings = Vec::new();
    if api_version < constants::API_VERSION_12_6 {
        return findings;
    }
    for shape in SHAPES {
        let Some(theirs) = header.structs.get(shape.c_name) else {
            findings.push(format!("{} is not there", shape.c_name));
            continue;
        };
        if theirs.size < shape.size {
            findings.push(format!(
                "{} has {} bytes, theirs {}",
                shape.c_name, shape.size, theirs.size
            ));
        }
        for &(field, offset, size) in shape.fields {
            let found = theirs.fields.get(field).copied();
            if found != Some((offset, size)) {
                let name = shape.c_name;
                findings.push(format!(
                    "{name}.{field}: (offset, size) {:?}, theirs {found:?}",
                    (offset, size)
                ));
            }
        }
    }
    findings
}

fn activity(c_name: &str) -> String {
    format!("CUpti_Activity{c_name}")
}

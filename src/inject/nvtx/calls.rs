//! The functions of ours that NVTX calls: each calls the chained tool's, then does its own part.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::inject::guard;
use crate::inject::nvtx::abi::{
    Attributes, CORE, CORE2, Function, GetExportTable, MESSAGE_ASCII, MESSAGE_REGISTERED, MESSAGE_UNICODE, Module,
    Payload, Text,
};
use crate::inject::nvtx::events::{NO_LEVEL, Name, end, mark_moment, pop, push, start};
use crate::inject::nvtx::registry::{CATEGORIES, DOMAINS, STRINGS, category_key};
use crate::inject::nvtx::stack::Details;
use crate::inject::nvtx::{chain, state};
use crate::schema::env;

type Event = *const Attributes;
type Narrow = *const c_char;
/// `wchar_t`.
type Wide = *const u32;
/// Handle of a domain; 0 is the default one.
type Domain = usize;

/// One function: where NVTX has its place, what is put there, and what the chained tool had put there.
struct Callback {
    module: u32,
    id: usize,
    ours: Function,
    theirs: &'static AtomicPtr<c_void>,
}

macro_rules! callbacks {
    ($( $module:ident $id:literal $name:ident ( $($argument:ident: $type:ty),* ) -> $result:ty, $fallback:expr => $body:expr; )*) => {
        #[allow(non_upper_case_globals, reason = "named as the function that each belongs to")]
        mod theirs {
            use super::{AtomicPtr, c_void};
            $( pub(super) static $name: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut()); )*
        }

        $( unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            guard::ffi($fallback, || {
                let theirs = theirs::$name.load(Ordering::Acquire);
                // SAFETY: NVTX keeps functions of this type in this place, and calls it with these arguments.
                let theirs = (!theirs.is_null()).then(|| unsafe {
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $result>(theirs)($($argument),*)
                });
                with_theirs(theirs, $body)
            })
        } )*

        fn for_each(mut act: impl FnMut(&Callback)) {
            $( act(&Callback {
                module: $module,
                id: $id,
                ours: $name as unsafe extern "C" fn($($type),*) -> $result as Function,
                theirs: &theirs::$name,
            }); )*
        }
    };
}

/// Gives the closures below their type.
fn with_theirs<T>(theirs: Option<T>, ours: impl FnOnce(Option<T>) -> T) -> T {
    ours(theirs)
}

callbacks! {
    CORE 1 mark_ex(event: Event) -> (), () => |_| marked(0, event);
    CORE 2 mark_a(name: Narrow) -> (), () => |_| mark_moment(Details::default(), narrow(name));
    CORE 3 mark_w(name: Wide) -> (), () => |_| mark_moment(Details::default(), wide(name));
    CORE 4 range_start_ex(event: Event) -> u64, 0 => |theirs| started(0, event, theirs);
    CORE 5 range_start_a(name: Narrow) -> u64, 0 => |theirs| start(Details::default(), narrow(name), theirs);
    CORE 6 range_start_w(name: Wide) -> u64, 0 => |theirs| start(Details::default(), wide(name), theirs);
    CORE 7 range_end(id: u64) -> (), () => |_| end(id);
    CORE 8 range_push_ex(event: Event) -> i32, NO_LEVEL => |_| pushed(0, event);
    CORE 9 range_push_a(name: Narrow) -> i32, NO_LEVEL => |_| push(Details::default(), narrow(name));
    CORE 10 range_push_w(name: Wide) -> i32, NO_LEVEL => |_| push(Details::default(), wide(name));
    CORE 11 range_pop() -> i32, NO_LEVEL => |_| pop(0);
    CORE 12 name_category_a(id: u32, name: Narrow) -> (), () => |_| name_category(0, id, Text::Narrow(name));
    CORE 13 name_category_w(id: u32, name: Wide) -> (), () => |_| name_category(0, id, Text::Wide(name));
    CORE2 1 domain_mark_ex(domain: Domain, event: Event) -> (), () => |_| marked(domain, event);
    CORE2 2 domain_range_start_ex(domain: Domain, event: Event) -> u64, 0 => |theirs| started(domain, event, theirs);
    CORE2 3 domain_range_end(_domain: Domain, id: u64) -> (), () => |_| end(id);
    CORE2 4 domain_range_push_ex(domain: Domain, event: Event) -> i32, NO_LEVEL => |_| pushed(domain, event);
    CORE2 5 domain_range_pop(domain: Domain) -> i32, NO_LEVEL => |_| pop(domain);
    CORE2 8 domain_name_category_a(domain: Domain, id: u32, name: Narrow) -> (), () =>
        |_| name_category(domain, id, Text::Narrow(name));
    CORE2 9 domain_name_category_w(domain: Domain, id: u32, name: Wide) -> (), () =>
        |_| name_category(domain, id, Text::Wide(name));
    CORE2 10 domain_register_string_a(_domain: Domain, text: Narrow) -> usize, 0 =>
        // SAFETY: NVTX's callers pass a text that ends in a zero. So below.
        |theirs| unsafe { STRINGS.register(theirs, Text::Narrow(text)) };
    CORE2 11 domain_register_string_w(_domain: Domain, text: Wide) -> usize, 0 =>
        // SAFETY: as above.
        |theirs| unsafe { STRINGS.register(theirs, Text::Wide(text)) };
    CORE2 12 domain_create_a(name: Narrow) -> Domain, 0 =>
        // SAFETY: as above.
        |theirs| unsafe { DOMAINS.register(theirs, Text::Narrow(name)) };
    CORE2 13 domain_create_w(name: Wide) -> Domain, 0 =>
        // SAFETY: as above.
        |theirs| unsafe { DOMAINS.register(theirs, Text::Wide(name)) };
}

fn narrow(name: Narrow) -> Name {
    Name::Text(Text::Narrow(name))
}

fn wide(name: Wide) -> Name {
    Name::Text(Text::Wide(name))
}

fn read(domain: Domain, event: Event) -> (Details, Name) {
    // SAFETY: NVTX's callers pass null or attributes that say how long they are.
    let event = unsafe { Attributes::read(event) };
    let name = match event.message_type {
        MESSAGE_ASCII => narrow(event.message.cast()),
        MESSAGE_UNICODE => wide(event.message.cast()),
        MESSAGE_REGISTERED => Name::Registered(event.message as usize),
        _ => Name::None,
    };
    let details = Details {
        domain,
        category: event.category,
        payload: Payload::of(&event),
    };
    (details, name)
}

fn pushed(domain: Domain, event: Event) -> i32 {
    let (details, name) = read(domain, event);
    push(details, name)
}

fn started(domain: Domain, event: Event, theirs: Option<u64>) -> u64 {
    let (details, name) = read(domain, event);
    start(details, name, theirs)
}

fn marked(domain: Domain, event: Event) {
    let (details, name) = read(domain, event);
    mark_moment(details, name);
}

fn name_category(domain: Domain, id: u32, name: Text) {
    // SAFETY: NVTX's callers pass a text that ends in a zero.
    unsafe { CATEGORIES.register(Some(category_key(domain, id)), name) };
}

/// A library with NVTX asks to be instrumented: once each, several at once. 0: nobody wants its events.
pub(crate) fn initialize(table: GetExportTable, ours: *const c_void) -> i32 {
    // SAFETY: NVTX passes its own function.
    let modules = [CORE, CORE2].map(|module| (module, unsafe { Module::ask(table, module) }));
    let module = |number: u32| modules.iter().find(|(known, _)| *known == number)?.1.as_ref();
    let get = |callback: &Callback| module(callback.module)?.get(callback.id);
    let mut before = Vec::new();
    for_each(|callback| before.push(get(callback)));
    let is_chained = chain::initialize(table, ours);
    if !is_wanted() {
        return i32::from(is_chained);
    }
    // Reads the environment now, not at the first push.
    state();
    let mut before = before.into_iter();
    for_each(|callback| {
        let (before, now) = (before.next().flatten(), get(callback));
        // One that the tool left alone would come back here.
        if let Some(theirs) = now.filter(|_| is_chained && now != before) {
            callback.theirs.store(theirs.cast_mut(), Ordering::Release);
        }
        if let Some(module) = module(callback.module) {
            module.set(callback.id, callback.ours);
        }
    });
    1
}

/// An extension of NVTX asks. Its functions are the chained tool's, if it takes them, and nobody's otherwise. But a 0
/// would also have NVTX say that every domain is disabled, and Python's `nvtx` then makes no range at all.
pub(crate) fn initialize_extension(module: *mut c_void, ours: *const c_void) -> i32 {
    i32::from(chain::initialize_extension(module, ours) || is_wanted())
}

fn is_wanted() -> bool {
    std::env::var_os(env::SESSION).is_some_and(|session| !session.is_empty())
}

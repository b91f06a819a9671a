//! The functions of ours that NVTX calls: each calls the chained tool's, then does its own part.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::inject::guard;
use crate::inject::nvtx::abi::{
    Attributes, CORE, CORE2, Function, GetExportTable, MESSAGE_ASCII, MESSAGE_REGISTERED, MESSAGE_UNICODE, Module,
    Payload, Text,
};
use crate::inject::nvtx::events::{NO_LEVEL, Name, end, mark_moment, pop, push, start};
use crate::inject::nvtx::registry::{CATEGORIES, DOMAINS, STRINGS, category_key};
use crate::inject::nvtx::stack::Details;
use crate::inject::nvtx::{chain, read_filter, state};
use crate::schema::env;

type Event = *const Attributes;
type Narrow = *const c_char;
/// `wchar_t`.
type Wide = *const u32;
/// Handle of a domain; 0 is the default one.
type Domain = usize;

/// Different functions of a chained tool that can be called in one place. Mostly a tool puts the same one into each
/// library, or leaves a library alone.
const TOOLS: usize = 3;

/// One function: where NVTX has its place, what the chained tool had put there, and what is put there instead: a function
/// that calls no tool, or the one that calls the tool's of this number.
struct Callback {
    module: u32,
    id: usize,
    ours: [Function; TOOLS + 1],
    theirs: &'static [AtomicPtr<c_void>; TOOLS],
}

impl Callback {
    /// The function of ours that calls this one of the tool. None: there are too many.
    fn calling(&self, theirs: Option<Function>) -> Option<Function> {
        let Some(theirs) = theirs.map(<*const c_void>::cast_mut) else {
            return self.ours.first().copied();
        };
        let tool = self.theirs.iter().position(|known| {
            let taken = known.compare_exchange(std::ptr::null_mut(), theirs, Ordering::AcqRel, Ordering::Acquire);
            taken.is_ok() || taken == Err(theirs)
        })?;
        self.ours.get(tool + 1).copied()
    }
}

static LEFT_TO_TOOL: AtomicU64 = AtomicU64::new(0);

/// Places in libraries that are still the tool's.
pub(crate) fn left_to_tool() -> u64 {
    LEFT_TO_TOOL.load(Ordering::Relaxed)
}

macro_rules! callbacks {
    ($( $module:ident $id:literal $name:ident ( $($argument:ident: $type:ty),* ) -> $result:ty, $fallback:expr => $body:expr; )*) => {
        #[allow(non_upper_case_globals, reason = "named as the function that each belongs to")]
        mod theirs {
            use super::{AtomicPtr, TOOLS, c_void};
            $( pub(super) static $name: [AtomicPtr<c_void>; TOOLS] =
                [const { AtomicPtr::new(std::ptr::null_mut()) }; TOOLS]; )*
        }

        $( unsafe extern "C" fn $name<const TOOL: usize>($($argument: $type),*) -> $result {
            guard::ffi($fallback, || {
                let theirs = TOOL.checked_sub(1).and_then(|tool| theirs::$name.get(tool));
                // SAFETY: NVTX keeps functions of this type in this place, and calls it with these arguments. It was
                // set before NVTX got the function that calls it.
                let theirs = theirs.map(|theirs| theirs.load(Ordering::Acquire)).map(|theirs| unsafe {
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $result>(theirs)($($argument),*)
                });
                with_theirs(theirs, $body)
            })
        } )*

        fn for_each(mut act: impl FnMut(&Callback)) {
            $( act(&Callback {
                module: $module,
                id: $id,
                ours: [
                    $name::<0> as unsafe extern "C" fn($($type),*) -> $result as Function,
                    $name::<1> as unsafe extern "C" fn($($type),*) -> $result as Function,
                    $name::<2> as unsafe extern "C" fn($($type),*) -> $result as Function,
                    $name::<3> as unsafe extern "C" fn($($type),*) -> $result as Function,
                ],
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
    read_filter();
    state();
    let mut before = before.into_iter();
    for_each(|callback| {
        let (before, now) = (before.next().flatten(), get(callback));
        // One that the tool left alone would come back here.
        let theirs = now.filter(|_| is_chained && now != before);
        match (module(callback.module), callback.calling(theirs)) {
            (Some(module), Some(ours)) => module.set(callback.id, ours),
            (Some(_), None) => drop(LEFT_TO_TOOL.fetch_add(1, Ordering::Relaxed)),
            (None, _) => {}
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

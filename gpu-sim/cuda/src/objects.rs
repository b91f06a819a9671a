//! What the handles point to. Objects are leaked (a handle given back is marked, not freed), except graph executables,
//! so a stale handle gives an error, or a message and the end, instead of what the real driver would do.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sim_abi::{Header, Kernel, Status, magic, status};

use crate::capture::Capture;
use crate::timeline::Timeline;

/// CUPTI's id of every null stream.
const NULL_STREAM_ID: u64 = 7;
/// CUPTI counts created streams from about here: the first ones are internal.
const FIRST_STREAM_ID: u32 = 13;

/// Enters a lock, whatever became of the thread that held it last.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A struct whose first field is its [`Header`].
///
/// # Safety
/// The struct is `#[repr(C)]` and begins with a `Header` of this magic.
pub(crate) unsafe trait Object: 'static {
    const MAGIC: u32;
}

/// The object behind a handle, or `INVALID_HANDLE`.
pub(crate) fn get<T: Object>(handle: *const c_void) -> Result<&'static T, Status> {
    if handle.is_null() || !handle.cast::<Header>().is_aligned() {
        return Err(status::INVALID_HANDLE);
    }
    // SAFETY: handles are pointers that this library gave out, and their objects are not freed.
    let header = unsafe { &*handle.cast::<Header>() };
    if header.magic != T::MAGIC {
        return Err(status::INVALID_HANDLE);
    }
    // SAFETY: the magic says that it is a `T`.
    Ok(unsafe { &*handle.cast::<T>() })
}

/// From here on the handle is stale.
pub(crate) fn retire<T: Object>(object: &'static T) {
    // SAFETY: leaked, with the header first; the owner says that nobody uses it any more.
    unsafe { std::ptr::write_volatile(handle(object).cast::<u32>(), 0) };
}

/// What the real library does not survive ends the process.
pub(crate) fn die(what: &str) -> ! {
    let line = format!("gpu-sim: {what}\n");
    // SAFETY: the bytes are valid; where stderr is closed, nothing is written.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
    std::process::abort()
}

/// The handle of an object.
pub(crate) fn handle<T: Object>(object: &T) -> *mut c_void {
    std::ptr::from_ref(object).cast_mut().cast()
}

fn header(magic: u32, device: u32, id: u64) -> Header {
    Header { magic, device, id }
}

#[repr(C)]
pub(crate) struct Context {
    header: Header,
    null_stream: OnceLock<Stream>,
    streams: Mutex<Vec<&'static Stream>>,
    destroyed: AtomicBool,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for Context {
    const MAGIC: u32 = magic::CONTEXT;
}

static CONTEXTS: Mutex<Vec<&'static Context>> = Mutex::new(Vec::new());

impl Context {
    pub(crate) fn create(device: u32) -> &'static Context {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let context: &'static Context = Box::leak(Box::new(Context {
            header: header(magic::CONTEXT, device, id),
            null_stream: OnceLock::new(),
            streams: Mutex::new(Vec::new()),
            destroyed: AtomicBool::new(false),
        }));
        let null_stream = context
            .null_stream
            .get_or_init(|| Stream::new(context, NULL_STREAM_ID, 0, flag::NULL));
        lock(&context.streams).push(null_stream);
        lock(&CONTEXTS).push(context);
        context
    }

    /// All contexts that were not destroyed.
    pub(crate) fn all() -> Vec<&'static Context> {
        lock(&CONTEXTS).clone()
    }

    pub(crate) fn destroy(&'static self) {
        self.destroyed.store(true, Ordering::Release);
        lock(&CONTEXTS).retain(|context| !std::ptr::eq(*context, self));
    }

    pub(crate) fn is_destroyed(&self) -> bool {
        self.destroyed.load(Ordering::Acquire)
    }

    pub(crate) fn id(&self) -> u32 {
        self.header.id as u32
    }

    pub(crate) fn device(&self) -> u32 {
        self.header.device
    }

    /// Its streams, the null stream first.
    pub(crate) fn streams(&self) -> Vec<&'static Stream> {
        lock(&self.streams).clone()
    }
}

thread_local! {
    static CURRENT: Cell<Option<&'static Context>> = const { Cell::new(None) };
    static PUSHED: RefCell<Vec<Option<&'static Context>>> = const { RefCell::new(Vec::new()) };
}

/// The context current to this thread.
pub(crate) fn current() -> Option<&'static Context> {
    CURRENT.try_with(Cell::get).ok().flatten()
}

pub(crate) fn set_current(context: Option<&'static Context>) {
    CURRENT.set(context);
}

pub(crate) fn push_current(context: &'static Context) {
    PUSHED.with_borrow_mut(|pushed| pushed.push(current()));
    set_current(Some(context));
}

pub(crate) fn pop_current() -> Result<&'static Context, Status> {
    let context = current().ok_or(status::INVALID_CONTEXT)?;
    set_current(PUSHED.with_borrow_mut(Vec::pop).flatten());
    Ok(context)
}

/// Values of `CUpti_ActivityStreamFlag`.
pub(crate) mod flag {
    pub(crate) const DEFAULT: u32 = 1;
    pub(crate) const NON_BLOCKING: u32 = 2;
    pub(crate) const NULL: u32 = 3;
}

#[repr(C)]
pub(crate) struct Stream {
    header: Header,
    pub(crate) context: &'static Context,
    pub(crate) priority: i32,
    pub(crate) flag: u32,
    pub(crate) timeline: Timeline,
    /// Mirrors `capture`, for a look without the lock.
    capturing: AtomicBool,
    capture: Mutex<Option<Arc<Capture>>>,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for Stream {
    const MAGIC: u32 = magic::STREAM;
}

impl Stream {
    fn new(context: &'static Context, id: u64, priority: i32, flag: u32) -> Stream {
        Stream {
            header: header(magic::STREAM, 0, id),
            context,
            priority,
            flag,
            timeline: Timeline::new(),
            capturing: AtomicBool::new(false),
            capture: Mutex::new(None),
        }
    }

    pub(crate) fn create(context: &'static Context, priority: i32, flag: u32) -> &'static Stream {
        static NEXT: AtomicU32 = AtomicU32::new(FIRST_STREAM_ID);
        let id = u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let stream: &'static Stream = Box::leak(Box::new(Stream::new(context, id, priority, flag)));
        lock(&context.streams).push(stream);
        stream
    }

    pub(crate) fn destroy(&'static self) {
        lock(&self.context.streams).retain(|stream| !std::ptr::eq(*stream, self));
        retire(self);
    }

    /// The default stream of the calling thread.
    fn of_thread(context: &'static Context) -> &'static Stream {
        thread_local! {
            static OF_THREAD: RefCell<Vec<&'static Stream>> = const { RefCell::new(Vec::new()) };
        }
        OF_THREAD.with_borrow_mut(|streams| {
            let known = streams.iter().find(|stream| std::ptr::eq(stream.context, context));
            let stream = known
                .copied()
                .unwrap_or_else(|| Stream::create(context, 0, flag::DEFAULT));
            if known.is_none() {
                streams.push(stream);
            }
            stream
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.header.id as u32
    }

    /// The capture that this stream takes part in. One that has ended is left.
    pub(crate) fn capture(&self) -> Option<Arc<Capture>> {
        if !self.capturing.load(Ordering::Acquire) {
            return None;
        }
        let mut capture = lock(&self.capture);
        if capture.as_ref().is_some_and(|capture| capture.has_ended()) {
            *capture = None;
            self.capturing.store(false, Ordering::Release);
        }
        capture.clone()
    }

    pub(crate) fn set_capture(&self, capture: Option<Arc<Capture>>) {
        let mut place = lock(&self.capture);
        self.capturing.store(capture.is_some(), Ordering::Release);
        *place = capture;
    }
}

/// `CU_STREAM_PER_THREAD`.
const PER_THREAD: usize = 2;

/// The stream behind a handle; the null handle and the predefined one below mean the context's null stream.
pub(crate) fn stream(handle: *const c_void) -> Result<&'static Stream, Status> {
    if handle as usize > PER_THREAD {
        return get(handle);
    }
    let context = current().ok_or(status::INVALID_CONTEXT)?;
    if handle as usize == PER_THREAD {
        return Ok(Stream::of_thread(context));
    }
    context.null_stream.get().ok_or(status::INVALID_CONTEXT)
}

#[repr(C)]
pub(crate) struct Event {
    header: Header,
    /// When the work before it is done; 0 if it was never recorded.
    pub(crate) done_at: AtomicU64,
    pub(crate) capture: Mutex<Option<Arc<Capture>>>,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for Event {
    const MAGIC: u32 = magic::EVENT;
}

impl Event {
    pub(crate) fn create() -> &'static Event {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let header = header(magic::EVENT, 0, id);
        Box::leak(Box::new(Event {
            header,
            done_at: AtomicU64::new(0),
            capture: Mutex::new(None),
        }))
    }

    pub(crate) fn id(&self) -> u32 {
        self.header.id as u32
    }
}

#[repr(C)]
pub(crate) struct Module {
    header: Header,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for Module {
    const MAGIC: u32 = magic::MODULE;
}

impl Module {
    pub(crate) fn create() -> &'static Module {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Box::leak(Box::new(Module {
            header: header(magic::MODULE, 0, id),
        }))
    }
}

#[repr(C)]
pub(crate) struct Function {
    header: Header,
    pub(crate) kernel: &'static Kernel,
}

// SAFETY: `#[repr(C)]`, header first.
unsafe impl Object for Function {
    const MAGIC: u32 = magic::FUNCTION;
}

impl Function {
    pub(crate) fn create(kernel: &'static Kernel) -> &'static Function {
        Box::leak(Box::new(Function {
            header: header(magic::FUNCTION, 0, u64::from(kernel.id)),
            kernel,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_another_kind_or_none_is_invalid() {
        let event = handle(Event::create());
        assert!(get::<Event>(event).is_ok());
        assert_eq!(get::<Module>(event).err(), Some(status::INVALID_HANDLE));
        assert_eq!(get::<Module>(std::ptr::null()).err(), Some(status::INVALID_HANDLE));
    }

    #[test]
    fn contexts_stack_and_their_null_streams_have_cuptis_id() {
        let [first, second] = [Context::create(0), Context::create(0)];
        set_current(Some(first));
        push_current(second);
        assert_eq!(stream(std::ptr::null()).unwrap().context.id(), second.id());
        assert!(std::ptr::eq(pop_current().unwrap(), second));
        let null_stream = stream(std::ptr::null()).unwrap();
        assert_eq!((null_stream.id(), null_stream.context.id()), (7, first.id()));
        set_current(None);
        assert_eq!(pop_current().err(), Some(status::INVALID_CONTEXT));
        assert!(Stream::create(first, 0, flag::NON_BLOCKING).id() >= FIRST_STREAM_ID);
    }
}

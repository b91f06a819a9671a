//! Which window a record belongs to.

use proptest::prelude::*;

use super::*;

fn finder(windows: &Windows) -> WindowFinder {
    let mut finder = WindowFinder::default();
    finder.renew(windows);
    finder
}

#[test]
fn work_launched_before_the_stop_counts_however_late_it_runs() {
    let windows = Windows::default();
    windows.open(1_000, Some(10), "profiler", None);
    windows.close(1, 2_000, Some(20));
    windows.open(3_000, Some(30), "profiler", None);
    let finder = finder(&windows);
    assert_eq!(finder.find(15, 1_500), Some(1));
    assert_eq!(finder.find(20, 9_000), Some(1), "launched in window 1, ran in window 2");
    assert_eq!(finder.find(25, 2_500), None, "launched between the windows");
    assert_eq!(finder.find(25, 9_000), None);
    assert_eq!(finder.find(31, 9_000), Some(2));
}

#[test]
fn the_window_opened_last_takes_the_record() {
    let windows = Windows::default();
    windows.open(0, Some(0), "region", None);
    windows.open(100, Some(10), "region", None);
    windows.open(200, Some(20), "region", None);
    windows.close(2, 300, Some(30));
    windows.close(3, 400, Some(40));
    windows.close(1, 500, Some(50));
    let finder = finder(&windows);
    let found: Vec<_> = [5, 15, 25, 35, 45, 55].map(|id| finder.find(id, 9_000)).into();
    assert_eq!(found, [Some(1), Some(2), Some(3), Some(3), Some(1), None]);
}

#[test]
fn ids_wrap() {
    let windows = Windows::default();
    windows.open(1_000, Some(u32::MAX - 1), "profiler", None);
    windows.close(1, 2_000, Some(3));
    let finder = finder(&windows);
    assert_eq!(finder.find(u32::MAX, 1_500), Some(1));
    assert_eq!(finder.find(2, 1_500), Some(1));
    assert_eq!(finder.find(4, 1_500), None);
}

#[test]
fn far_from_a_boundary_time_decides() {
    let windows = Windows::default();
    windows.open(0, Some(10), "process", None);
    // 2^31 calls later the id looks smaller than the mark.
    assert_eq!(finder(&windows).find(9, 10 * NEAR_NS), Some(1));
    windows.open(10 * NEAR_NS, Some(5), "region", None);
    let finder = finder(&windows);
    assert_eq!(finder.find(4, 10 * NEAR_NS + 1), Some(1));
    assert_eq!(finder.find(6, 10 * NEAR_NS + 1), Some(2));
}

#[test]
fn without_marks_time_decides() {
    let windows = Windows::default();
    windows.open(1_000, None, "manual", None);
    windows.close(1, 2_000, None);
    let finder = finder(&windows);
    assert_eq!(finder.find(5, 999), None);
    assert_eq!(finder.find(5, 1_000), Some(1));
    assert_eq!(finder.find(5, 2_000), Some(1));
    assert_eq!(finder.find(5, 2_001), None);
}

#[test]
fn a_callback_that_came_late_keeps_its_place() {
    let windows = Windows::default();
    windows.open(0, Some(10), "profiler", None);
    windows.open(1_000, Some(103), "region", None);
    // cuProfilerStop was call 100; whoever held the gate then had marked the region first.
    windows.close(1, 1_001, Some(100));
    let finder = finder(&windows);
    assert_eq!(finder.find(100, 2_000), Some(1));
    assert_eq!(finder.find(102, 2_000), None);
    assert_eq!(finder.find(104, 2_000), Some(2));
}

#[test]
fn many_windows_of_a_long_time() {
    let windows = Windows::default();
    let step = NEAR_NS / 10;
    windows.open(0, Some(0), "process", None);
    for number in 1..=1_000_u32 {
        let start_ns = i64::from(number) * step;
        windows.open(start_ns, Some(number * 10), "profiler", None);
        windows.close(number + 1, start_ns + step / 2, Some(number * 10 + 5));
    }
    let finder = finder(&windows);
    assert_eq!(finder.find(10_003, 1_000 * step + 1), Some(1_001));
    assert_eq!(finder.find(13, step + 1), Some(2), "also the early ones");
    assert_eq!(finder.find(10_008, 1_000 * step + step * 3 / 4), Some(1), "between");
    assert!(finder.is_mark(10_005) && !finder.is_mark(10_006));
}

#[test]
fn only_an_open_window_closes() {
    let windows = Windows::default();
    assert!(!windows.close(0, 1, None) && !windows.close(1, 1, None));
    assert_eq!(windows.open(2, None, "manual", None), 1);
    assert!(windows.close(1, 3, None));
    assert!(!windows.close(1, 4, None));
    assert_eq!(windows.manifest()[0].end_ns, Some(3));
}

#[test]
fn windows_get_on_disk_in_the_order_in_which_they_closed() {
    let windows = Windows::default();
    for number in 1..=3 {
        assert_eq!(
            windows.open(number, None, "region", None),
            u32::try_from(number).unwrap()
        );
    }
    windows.close(3, 10, None);
    windows.close(1, 11, None);
    assert_eq!((windows.closed(), windows.sealed()), (2, 0));
    windows.seal(1, 20);
    windows.seal(0, 21);
    let sealed = |windows: &Windows| windows.manifest().iter().map(|w| w.sealed_ns).collect::<Vec<_>>();
    assert_eq!(sealed(&windows), [None, None, Some(20)]);
    let numbers = |closed| {
        windows
            .closed_after(closed)
            .iter()
            .map(|w| w.number)
            .collect::<Vec<_>>()
    };
    assert_eq!((numbers(0), numbers(1), numbers(9)), (vec![3, 1], vec![1], vec![]));
    windows.seal(9, 30);
    assert_eq!((windows.closed(), windows.sealed()), (2, 2));
    assert_eq!(sealed(&windows), [Some(30), None, Some(20)]);
    assert_eq!(windows.open_now().iter().map(|w| w.number).collect::<Vec<_>>(), [2]);
}

/// A window as the naive search has it: opened and closed after these ids.
#[derive(Debug)]
struct Naive {
    opened: u32,
    closed: Option<u32>,
}

/// What happens after some more launches.
#[derive(Debug, Clone)]
enum Event {
    Open,
    /// The n-th of the open ones, if there is one.
    Close(usize),
}

fn events() -> impl Strategy<Value = Vec<(u32, Event)>> {
    let event = prop_oneof![Just(Event::Open), (0..4_usize).prop_map(Event::Close)];
    prop::collection::vec((0..4_u32, event), 0..40)
}

proptest! {
    #[test]
    fn every_id_gets_the_window_that_a_naive_search_gives(
        events in events(),
        base in prop_oneof![Just(1_u32), Just(u32::MAX - 20)],
        late in prop::collection::vec(0..3_u32, 40),
    ) {
        let windows = Windows::default();
        let mut naive: Vec<Naive> = Vec::new();
        let mut id = 0_u32;
        for ((launches, event), late) in events.into_iter().zip(late) {
            // A close may be told late, after launches that are no longer its own.
            id += launches + late;
            let mark = id - late.min(launches);
            match event {
                Event::Open => {
                    let number = windows.open(i64::from(id), Some(base.wrapping_add(id)), "region", None);
                    naive.push(Naive { opened: id, closed: None });
                    prop_assert_eq!(number as usize, naive.len());
                }
                Event::Close(nth) => {
                    let open: Vec<_> = (0..naive.len()).filter(|&index| naive[index].closed.is_none()).collect();
                    let Some(&index) = open.get(nth) else { continue };
                    let mark = mark.max(naive[index].opened);
                    naive[index].closed = Some(mark);
                    let number = u32::try_from(index + 1).unwrap();
                    prop_assert!(windows.close(number, i64::from(id), Some(base.wrapping_add(mark))));
                }
            }
        }
        let finder = finder(&windows);
        for launched in 0..id + 5 {
            let holds = |window: &Naive| launched > window.opened && window.closed.is_none_or(|closed| launched <= closed);
            let expected = naive.iter().rposition(holds).map(|index| u32::try_from(index + 1).unwrap());
            let correlation_id = base.wrapping_add(launched);
            if correlation_id != 0 {
                prop_assert_eq!(finder.find(correlation_id, 1_000), expected, "id {}", launched);
            }
        }
        let open = naive.iter().filter(|window| window.closed.is_none()).count();
        prop_assert_eq!(windows.open_now().len(), open);
        prop_assert_eq!(windows.closed(), naive.len() - open);
    }
}

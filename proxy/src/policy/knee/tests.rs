use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { min: 4, max: 2000 };

fn met(room: bool) -> Met {
    if room { Met::Room } else { Met::Limit }
}

/// An app that takes `service` for a request and completes `capacity` a second at most, asked by as many as get in.
struct App {
    knee: Knee,
    now: Instant,
    service: f64,
    capacity: f64,
}

impl App {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            knee: Knee::new(BOUNDS, true, now),
            now,
            service: 0.008,
            capacity: 1000.0,
        }
    }

    /// About a window in which `wanted` would be in the app if they could.
    fn window(&mut self, wanted: u32, ended: Ended) {
        let in_flight = self.knee.limit().min(wanted);
        let time = self.service.max(f64::from(in_flight) / self.capacity);
        let throughput = f64::from(in_flight) / time;
        for _ in 0..(throughput * 0.25).ceil().max(100.0) as u32 {
            self.knee.on_start(in_flight);
            self.knee.on_arrival(met(wanted <= in_flight));
            self.now += Duration::from_secs_f64(1.0 / throughput);
            let latency = Duration::from_secs_f64(time);
            self.knee.on_done(latency, ended, in_flight, self.now);
        }
    }

    fn windows(&mut self, count: u32, wanted: u32) {
        (0..count).for_each(|_| self.window(wanted, Ended::Answered));
    }
}

#[test]
fn an_app_with_a_queue_is_held_where_twice_as_many_only_wait() {
    let mut app = App::new();
    app.windows(40, 7);
    for _ in 0..400 {
        app.window(5000, Ended::Answered);
        let limit = app.knee.limit();
        assert!((8..=30).contains(&limit), "{limit}");
    }
}

/// Planted: every long time in the app taken for a queue (no verdict after cutting).
#[test]
fn a_service_that_is_slower_for_everybody_is_not_cut_to_pieces() {
    let mut app = App::new();
    (app.service, app.capacity) = (0.02, f64::INFINITY);
    app.windows(40, 14); // 700 a second
    app.service = 0.12; // what it calls has become slow
    let before = app.knee.limit();
    for _ in 0..40 {
        app.windows(1, 84); // still 700 a second
        assert!(app.knee.limit() * 2 > before, "{}", app.knee.limit());
    }
    assert!(app.knee.limit() >= 84, "{}", app.knee.limit());
    let baseline = app.knee.baseline().expect("it has seen windows");
    assert!(baseline.as_millis() >= 60, "{baseline:?}");
}

#[test]
fn an_app_that_loses_capacity_is_cut_to_what_is_left() {
    let mut app = App::new();
    app.windows(40, 7);
    app.capacity = 250.0;
    app.windows(60, 200);
    assert!(app.knee.limit() <= 6, "{}", app.knee.limit());
}

/// Planted: hints of the app ignored while its answers are quick.
#[test]
fn an_app_that_says_it_has_too_much_to_do_is_believed() {
    let mut app = App::new();
    app.windows(10, 7);
    let before = app.knee.limit();
    for _ in 0..10 {
        for number in 0..100 {
            app.knee.on_start(before);
            app.knee.on_arrival(Met::Limit);
            app.now += Duration::from_micros(2500);
            // One in ten, and as quick as ever.
            let ended = match number % 10 {
                0 => Ended::Overloaded,
                _ => Ended::Answered,
            };
            app.knee
                .on_done(Duration::from_millis(8), ended, before, app.now);
        }
    }
    assert!(app.knee.limit() < before / 2, "{}", app.knee.limit());
    (0..10).for_each(|_| app.window(500, Ended::Overloaded));
    assert_eq!(app.knee.limit(), BOUNDS.min);
}

#[test]
fn an_idle_service_comes_down_to_what_one_starts_with() {
    let mut app = App::new();
    app.capacity = 100_000.0;
    app.windows(60, 300);
    assert!(app.knee.limit() >= 300, "{}", app.knee.limit());
    app.windows(200, 3);
    assert_eq!(app.knee.limit(), START);
}

/// Planted: a window in which anybody met the limit taken for a saturated one.
#[test]
fn a_burst_now_and_then_is_no_reason_to_cut() {
    let mut app = App::new();
    app.windows(40, 7);
    for _ in 0..20 {
        for number in 0..100 {
            app.knee.on_start(20);
            app.knee.on_arrival(met(number % 4 != 0));
            app.now += Duration::from_micros(2500);
            app.knee
                .on_done(Duration::from_millis(40), Ended::Answered, 20, app.now);
        }
    }
    assert!(app.knee.limit() >= START, "{}", app.knee.limit());
}

#[test]
fn one_that_only_observes_does_not_take_an_app_that_keeps_up_for_overloaded() {
    let mut app = App::new();
    app.knee = Knee::new(BOUNDS, false, app.now);
    app.windows(20, 10);
    app.service = 0.5;
    app.capacity = f64::INFINITY;
    for _ in 0..20 {
        // Nobody is held back, whatever the limit.
        for _ in 0..100 {
            app.knee.on_start(350);
            app.knee.on_arrival(Met::Limit);
            app.now += Duration::from_micros(2500);
            app.knee
                .on_done(Duration::from_millis(500), Ended::Answered, 350, app.now);
        }
    }
    assert!(app.knee.limit() >= 350, "{}", app.knee.limit());
}

/// What the app could do with more is not known while most are kept out of places that are free: the limit went up to where
/// a share of it that is free for all was too much for the app.
#[test]
fn a_limit_that_is_not_used_does_not_grow_but_comes_down_to_what_is() {
    let mut app = App::new();
    app.windows(40, 7);
    let before = app.knee.limit();
    let kept_free = |app: &mut App, millis: u64| {
        for _ in 0..100 {
            app.knee.on_start(8);
            app.knee.on_arrival(Met::KeptRoom);
            app.now += Duration::from_micros(2500);
            let latency = Duration::from_millis(millis);
            app.knee.on_done(latency, Ended::Answered, 8, app.now);
        }
    };
    (0..40).for_each(|_| kept_free(&mut app, 8));
    assert_eq!((before, app.knee.limit()), (20, 16), "twice what is used");
    (0..4).for_each(|_| kept_free(&mut app, 40));
    assert!(
        app.knee.limit() < 12,
        "a queue is one: {}",
        app.knee.limit()
    );
}

proptest! {
    /// Whatever comes, in whatever order, the limit stays within its bounds and can always admit somebody.
    #[test]
    fn the_limit_keeps_its_bounds(
        steps in prop::collection::vec((0u64..400, 0u32..3000, any::<bool>(), 0u8..4, 1u32..150), 1..200),
        min in 1u32..50, more in 0u32..3000, enforced: bool,
    ) {
        let bounds = Bounds { min, max: min + more };
        let mut now = Instant::now();
        let mut knee = Knee::new(bounds, enforced, now);
        for (millis, in_flight, saturated, ended, count) in steps {
            for _ in 0..count {
                now += Duration::from_millis(millis) / 20;
                knee.on_start(in_flight);
                knee.on_arrival(met(!saturated));
                let ended = [Ended::Answered, Ended::Overloaded, Ended::Failed, Ended::GivenUp, Ended::Unmeasured][usize::from(ended)];
                knee.on_done(Duration::from_millis(millis), ended, in_flight, now);
                prop_assert!((bounds.min..=bounds.max).contains(&knee.limit()));
            }
        }
    }
}

/// Everybody gives up before there is an answer, so there is nothing else to learn from. Planted bug: taking that for nothing.
#[test]
fn an_app_whose_callers_all_give_up_has_a_queue_and_who_leaves_early_says_nothing() {
    let mut app = App::new();
    app.windows(40, 7);
    let before = app.knee.limit();
    app.capacity = f64::INFINITY;
    app.window(5000, Ended::GivenUp);
    assert_eq!(
        app.knee.limit(),
        before,
        "they left sooner than it usually takes"
    );
    app.capacity = 100.0;
    for _ in 0..20 {
        app.window(5000, Ended::GivenUp);
    }
    assert!(app.knee.limit() <= 6, "{}", app.knee.limit());
}

//! A server: so much capacity, so much work a request, and what can be wrong with it.
//!
//! ```text
//!   arrive ─▶ queue ─▶ in service: at most `permits` (FIFO) or everybody at once (processor sharing) ─▶ dependency ─▶ answer
//!                        each at the speed of min(1, permits ÷ in service) ÷ slowdown
//! ```
//!
//! FIFO and processor sharing are one model with another number in service, so every fault works with both. Capacity is
//! exact: `permits ÷ mean work` requests a second. It schedules nothing by itself: after every call to it ask
//! [`Server::due`] when to come back, and come back with [`Server::finished`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

/// How long a request takes on an idle server.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    Constant(Duration),
    Exponential(Duration),
    /// Mean and the σ of the logarithm: 1.0 is a long tail.
    LogNormal(Duration, f64),
    /// Short, long, and the share of the long ones.
    Bimodal(Duration, Duration, f64),
}

/// Who is served first when not all can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// One after the other, as a thread pool does.
    Fifo,
    /// All at once, each more slowly, as an event loop or a kernel does.
    ProcessorSharing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Takes everything, answers nothing, finishes what it holds when it heals. New connections hang as well.
    BlackHole,
    /// This share of requests fails at once, after so long.
    Failing {
        share: f64,
        after: Duration,
    },
    /// New requests find nobody listening.
    Refusing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Good,
    /// 503, not marked in any way.
    Bad,
}

/// A request, as its sender numbers it.
pub type Job = u64;

#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub permits: u32,
    pub work: Work,
    pub discipline: Discipline,
    /// Whoever hangs up is worked for all the same (most apps), or not.
    pub keeps_dead_work: bool,
    /// More than that many in it at once, and it loses capacity in proportion (paging, lock convoys).
    pub thrashes_above: Option<u32>,
    /// What comes after the work and needs no capacity: a call to somebody else.
    pub dependency: Duration,
}

impl Default for Config {
    /// 1000 requests a second: eight at once, 8 ms each.
    fn default() -> Self {
        Self {
            permits: 8,
            work: Work::Exponential(Duration::from_millis(8)),
            discipline: Discipline::Fifo,
            keeps_dead_work: false,
            thrashes_above: None,
            dependency: Duration::ZERO,
        }
    }
}

pub struct Server {
    config: Config,
    slowdown: f64,
    fault: Fault,
    /// Every request that is here, and where.
    jobs: HashMap<Job, Stage>,
    /// May hold some that have left since.
    queue: VecDeque<(Job, f64)>,
    /// By the service that each will have attained when it is done.
    in_service: BTreeSet<(Attained, Job)>,
    /// Work is done; the answer comes at that moment. Also failures, which need no work.
    answers: BTreeSet<(Instant, Job)>,
    /// Seconds of service that somebody who was in service from the beginning would have attained by `since`.
    attained: f64,
    since: Instant,
}

#[derive(Clone, Copy)]
enum Stage {
    Queued,
    InService(Attained),
    Answering(Instant, Answer),
}

/// Seconds, as bits: those of positive floats are ordered like the floats.
type Attained = u64;

/// Floats do not add up exactly; a nanosecond early is in time.
const TOLERANCE: f64 = 1e-9;

impl Server {
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            slowdown: 1.0,
            fault: Fault::None,
            jobs: HashMap::new(),
            queue: VecDeque::new(),
            in_service: BTreeSet::new(),
            answers: BTreeSet::new(),
            attained: 0.0,
            since: now,
        }
    }

    pub fn arrive(&mut self, job: Job, now: Instant, rng: &mut Rng) {
        self.advance(now);
        if let Fault::Failing { share, after } = self.fault
            && rng.f64() < share
        {
            return self.answer_at(now + after, job, Answer::Bad);
        }
        let work = self.config.work.draw(rng).as_secs_f64();
        self.jobs.insert(job, Stage::Queued);
        self.queue.push_back((job, work));
        self.serve();
    }

    /// Its caller went away.
    pub fn cancel(&mut self, job: Job, now: Instant) {
        if self.config.keeps_dead_work {
            return;
        }
        self.advance(now);
        match self.jobs.remove(&job) {
            Some(Stage::InService(until)) => {
                self.in_service.remove(&(until, job));
            }
            Some(Stage::Answering(at, _)) => {
                self.answers.remove(&(at, job));
            }
            Some(Stage::Queued) | None => {}
        }
        self.serve();
    }

    /// When [`Server::finished`] has something to say, unless something else happens here before.
    pub fn due(&self) -> Option<Instant> {
        let answer = self.answers.first().map(|(at, _)| *at);
        let speed = self.speed();
        let work = self
            .in_service
            .first()
            .filter(|_| speed > 0.0)
            .map(|(until, _)| {
                let left = (f64::from_bits(*until) - self.attained).max(0.0) / speed;
                // Upwards: coming back too early would find nothing, for ever.
                self.since + Duration::from_nanos((left * 1e9).ceil() as u64)
            });
        answer.into_iter().chain(work).min()
    }

    /// One request that is finished by now; to be called until there is none.
    pub fn finished(&mut self, now: Instant) -> Option<(Job, Answer)> {
        self.advance(now);
        while let Some(&(until, job)) = self.in_service.first()
            && f64::from_bits(until) <= self.attained + TOLERANCE
        {
            self.in_service.pop_first();
            self.answer_at(now + self.config.dependency, job, Answer::Good);
            self.serve();
        }
        let &(at, job) = self.answers.first()?;
        if at > now {
            return None;
        }
        self.answers.pop_first();
        match self.jobs.remove(&job) {
            Some(Stage::Answering(_, answer)) => Some((job, answer)),
            _ => unreachable!("what has an answer is here"),
        }
    }

    /// Every request takes so many times as long: 10.0 for ten times, 1.0 to heal.
    pub fn set_slowdown(&mut self, slowdown: f64, now: Instant) {
        self.advance(now);
        self.slowdown = slowdown;
    }

    pub fn set_permits(&mut self, permits: u32, now: Instant) {
        self.advance(now);
        self.config.permits = permits;
        self.serve();
    }

    pub fn set_fault(&mut self, fault: Fault, now: Instant) {
        self.advance(now);
        self.fault = fault;
    }

    pub fn set_dependency(&mut self, dependency: Duration) {
        self.config.dependency = dependency;
    }

    /// Whether somebody answers a new connection; `None`: nobody, ever.
    pub fn connects(&self) -> Option<bool> {
        match self.fault {
            Fault::BlackHole => None,
            Fault::Refusing => Some(false),
            Fault::None | Fault::Failing { .. } => Some(true),
        }
    }

    /// Requests that are here, dead or alive.
    pub fn load(&self) -> usize {
        self.jobs.len()
    }

    fn answer_at(&mut self, at: Instant, job: Job, answer: Answer) {
        self.answers.insert((at, job));
        self.jobs.insert(job, Stage::Answering(at, answer));
    }

    /// Takes from the queue while there is room.
    fn serve(&mut self) {
        while self.config.discipline == Discipline::ProcessorSharing
            || self.in_service.len() < self.config.permits as usize
        {
            let Some((job, work)) = self.queue.pop_front() else {
                return;
            };
            let Some(stage @ Stage::Queued) = self.jobs.get_mut(&job) else {
                continue; // it has left
            };
            let until = (self.attained + work).to_bits();
            *stage = Stage::InService(until);
            self.in_service.insert((until, job));
        }
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        self.attained += passed.as_secs_f64() * self.speed();
        self.since = self.since.max(now);
    }

    /// Seconds of service that each in service attains in a second.
    fn speed(&self) -> f64 {
        if self.fault == Fault::BlackHole {
            return 0.0;
        }
        let here = self.jobs.len() as f64;
        let left = match self.config.thrashes_above {
            Some(above) => (f64::from(above) / here).min(1.0),
            None => 1.0,
        };
        let share = f64::from(self.config.permits) * left / self.in_service.len().max(1) as f64;
        share.min(1.0) / self.slowdown
    }
}

impl Work {
    pub fn mean(&self) -> Duration {
        match *self {
            Self::Constant(mean) | Self::Exponential(mean) | Self::LogNormal(mean, _) => mean,
            Self::Bimodal(short, long, share) => short.mul_f64(1.0 - share) + long.mul_f64(share),
        }
    }

    pub fn draw(&self, rng: &mut Rng) -> Duration {
        match *self {
            Self::Constant(work) => work,
            Self::Exponential(mean) => exponential(mean, rng),
            Self::LogNormal(mean, sigma) => {
                mean.mul_f64((sigma * normal(rng) - sigma * sigma / 2.0).exp())
            }
            Self::Bimodal(_, long, share) if rng.f64() < share => long,
            Self::Bimodal(short, ..) => short,
        }
    }
}

pub fn exponential(mean: Duration, rng: &mut Rng) -> Duration {
    mean.mul_f64(-(1.0 - rng.f64()).ln())
}

/// Box and Muller.
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLIS: Duration = Duration::from_millis(1);

    /// All that finish, with the millisecond in which they do.
    fn run(server: &mut Server, start: Instant) -> Vec<(Job, u64)> {
        let mut finished = Vec::new();
        while let Some(due) = server.due() {
            while let Some((job, _)) = server.finished(due) {
                finished.push((job, (due - start).as_millis() as u64));
            }
        }
        finished
    }

    fn server(discipline: Discipline, permits: u32) -> (Server, Instant) {
        let now = Instant::now();
        let config = Config {
            permits,
            work: Work::Constant(10 * MILLIS),
            discipline,
            ..Config::default()
        };
        (Server::new(config, now), now)
    }

    #[test]
    fn a_fifo_server_serves_one_after_the_other_and_a_sharing_one_all_at_once() {
        for (discipline, expected) in [
            (Discipline::Fifo, [(1, 10), (2, 20), (3, 30)]),
            (Discipline::ProcessorSharing, [(1, 30), (2, 30), (3, 30)]),
        ] {
            let (mut server, now) = server(discipline, 1);
            let mut rng = Rng::with_seed(0);
            (1..=3).for_each(|job| server.arrive(job, now, &mut rng));
            assert_eq!(run(&mut server, now), expected);
        }
    }

    #[test]
    fn its_capacity_is_what_its_permits_and_its_work_say() {
        for discipline in [Discipline::Fifo, Discipline::ProcessorSharing] {
            let now = Instant::now();
            let config = Config {
                discipline,
                ..Config::default()
            };
            let (mut server, mut rng) = (Server::new(config, now), Rng::with_seed(7));
            (0..10_000).for_each(|job| server.arrive(job, now, &mut rng));
            let (_, last) = run(&mut server, now).pop().expect("all of them");
            assert!((9_600..10_400).contains(&last), "1000 a second: {last}");
        }
    }

    #[test]
    fn who_hangs_up_is_worked_for_only_where_dead_work_is_kept() {
        for (keeps_dead_work, expected) in [(true, vec![(1, 10), (2, 20)]), (false, vec![(2, 10)])]
        {
            let (mut server, now) = server(Discipline::Fifo, 1);
            server.config.keeps_dead_work = keeps_dead_work;
            let mut rng = Rng::with_seed(0);
            server.arrive(1, now, &mut rng);
            server.arrive(2, now, &mut rng);
            server.cancel(1, now);
            assert_eq!(run(&mut server, now), expected);
        }
    }

    #[test]
    fn faults_take_effect_on_what_is_in_service() {
        let (mut server, now) = server(Discipline::Fifo, 1);
        let mut rng = Rng::with_seed(0);
        server.arrive(1, now, &mut rng);
        server.set_slowdown(10.0, now + 5 * MILLIS);
        server.set_fault(Fault::BlackHole, now + 15 * MILLIS);
        assert_eq!(server.due(), None);
        server.set_fault(Fault::None, now + 100 * MILLIS);
        assert_eq!(
            run(&mut server, now),
            [(1, 140)],
            "5 + 1 of 10 ms were done"
        );
        server.set_fault(
            Fault::Failing {
                share: 1.0,
                after: MILLIS,
            },
            now + 200 * MILLIS,
        );
        server.arrive(2, now + 200 * MILLIS, &mut rng);
        let (job, answer) = server.finished(now + 201 * MILLIS).expect("at once");
        assert_eq!((job, answer), (2, Answer::Bad));
    }

    #[test]
    fn a_server_that_thrashes_loses_capacity_in_proportion() {
        let (mut server, now) = server(Discipline::ProcessorSharing, 1);
        server.config.thrashes_above = Some(2);
        let mut rng = Rng::with_seed(0);
        (1..=4).for_each(|job| server.arrive(job, now, &mut rng));
        assert_eq!(run(&mut server, now)[0], (1, 80));
    }

    #[test]
    fn a_dependency_delays_answers_and_takes_no_capacity() {
        let (mut server, now) = server(Discipline::Fifo, 1);
        server.set_dependency(50 * MILLIS);
        let mut rng = Rng::with_seed(0);
        server.arrive(1, now, &mut rng);
        server.arrive(2, now, &mut rng);
        assert_eq!(run(&mut server, now), [(1, 60), (2, 70)]);
    }

    #[test]
    fn work_has_the_mean_that_it_says() {
        let mut rng = Rng::with_seed(7);
        let ten = 10 * MILLIS;
        for work in [
            Work::Constant(ten),
            Work::Exponential(ten),
            Work::LogNormal(ten, 1.0),
            Work::Bimodal(2 * MILLIS, 62 * MILLIS, 0.1),
        ] {
            let total: Duration = (0..100_000).map(|_| work.draw(&mut rng)).sum();
            let mean = total.div_duration_f64(100_000 * work.mean());
            assert!((0.97..1.03).contains(&mean), "{work:?}: {mean}");
        }
    }
}

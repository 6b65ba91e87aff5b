//! A task that is woken goes on at once, without a thread being woken that it doesn't need.
//!
//! One that wakes itself while it is polled is polled again. hyper's connections do that for each request with a body: what
//! reads the body asks the connection for it, and both are the same task. tokio would put the task at the end of its queue
//! and wake a thread that sleeps to take it from there, which takes longer than to read a small file.
//!
//! One that is woken by a thread that isn't one of the runtime's (a command has ended, a file is read) is woken by one of
//! those, which are told by a descriptor: [`Bell`]. tokio would wake two of them, the first to run the task and, before it
//! does, the second to look for more.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::Receiver;
use tokio_util::task::AbortOnDropHandle;

thread_local! {
    /// Whether tasks are run here.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Polls in a row. Who wakes himself more often lets others have their turn.
const MOST: usize = 4;

const WAITS: u8 = 0;
const IS_POLLED: u8 = 1;
const WAS_WOKEN: u8 = 2;
const WAITS_FOR_BELL: u8 = 3;

/// What the future is told to wake.
struct Alarm {
    task: AtomicWaker,
    state: AtomicU8,
    line: Arc<Line>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_worker = IS_WORKER.get();
        let seen = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
            // Who polls it sees to it.
            IS_POLLED => Some(WAS_WOKEN),
            WAITS if !is_worker => Some(WAITS_FOR_BELL),
            _ => None,
        });
        match seen {
            Ok(WAITS) => self.line.ring(Arc::clone(self)),
            Err(WAITS) => self.task.wake(),
            // It is woken already.
            _ => {}
        }
    }
}

/// What wakes tasks for threads that aren't the runtime's. It hangs until this is dropped.
pub(super) struct Bell {
    line: Arc<Line>,
    _answering: AbortOnDropHandle<()>,
}

struct Line {
    rung_for: Mutex<Vec<Arc<Alarm>>>,
    /// A pipe that the runtime watches.
    wire: OwnedFd,
}

impl Bell {
    /// Hangs one up in this runtime.
    ///
    /// # Errors
    /// There is no descriptor for it.
    pub(super) fn new() -> io::Result<Self> {
        let (heard, wire) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let heard = Receiver::from_owned_fd(heard)?;
        let line = Arc::new(Line { rung_for: Mutex::default(), wire });
        let answering = Arc::clone(&line);
        let answering = tokio::spawn(async move {
            // It ends with the runtime alone.
            while heard.readable().await.is_ok() {
                IS_WORKER.set(true);
                let _ = heard.try_read(&mut [0; 64]);
                answering.answer();
            }
        });
        Ok(Self { line, _answering: AbortOnDropHandle::new(answering) })
    }
}

impl Line {
    /// Each task is in there once at most: it waits for the bell until it is polled.
    fn ring(&self, alarm: Arc<Alarm>) {
        let mut rung_for = self.rung_for.lock().unwrap_or_else(PoisonError::into_inner);
        rung_for.push(alarm);
        if rung_for.len() == 1 {
            // It has room, since it is read whenever this was taken.
            let _ = rustix::io::write(&self.wire, &[0]);
        }
    }

    fn answer(&self) {
        let rung_for = std::mem::take(&mut *self.rung_for.lock().unwrap_or_else(PoisonError::into_inner));
        for alarm in rung_for {
            // What was polled since needs no waking.
            let waits = alarm.state.compare_exchange(WAITS_FOR_BELL, WAITS, Ordering::AcqRel, Ordering::Acquire);
            if waits.is_ok() {
                alarm.task.wake();
            }
        }
    }
}

/// Runs a future, which is polled again at once when it was woken while it was polled, and woken by the bell where no worker does it.
pub(super) async fn at_once<F: Future>(future: F, bell: Arc<Bell>) -> F::Output {
    let line = Arc::clone(&bell.line);
    let mut future = pin!(future);
    let alarm = Arc::new(Alarm { task: AtomicWaker::new(), state: AtomicU8::new(WAITS), line });
    let waker = Waker::from(Arc::clone(&alarm));
    poll_fn(move |context| {
        IS_WORKER.set(true);
        alarm.task.register(context.waker());
        for _ in 0..MOST {
            alarm.state.swap(IS_POLLED, Ordering::AcqRel);
            if let ready @ Poll::Ready(_) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return ready;
            }
            let slept = alarm.state.compare_exchange(IS_POLLED, WAITS, Ordering::AcqRel, Ordering::Acquire);
            if slept.is_ok() {
                return Poll::Pending;
            }
        }
        alarm.state.store(WAITS, Ordering::Release);
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often a task was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls once a future that wakes itself so many times, and then waits for somebody else. How often was it polled,
    /// and its task woken: then, and after somebody else has woken it?
    fn polled_and_woken(times: usize) -> [usize; 3] {
        let (task, mut polled, mut other) = (Arc::new(Woken::default()), 0, None);
        let waker = Waker::from(Arc::clone(&task));
        let at_first = {
            let future = poll_fn(|context| {
                polled += 1;
                if polled <= times {
                    context.waker().wake_by_ref();
                }
                other = Some(context.waker().clone());
                Poll::<()>::Pending
            });
            let mut future = pin!(at_once(future, Arc::new(Bell::new().unwrap())));
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            task.0.load(Ordering::Relaxed)
        };
        other.unwrap().wake();
        [polled, at_first, task.0.load(Ordering::Relaxed)]
    }

    #[tokio::test]
    async fn who_wakes_himself_is_polled_again_without_his_task_being_woken_and_others_have_their_turn() {
        assert_eq!(polled_and_woken(0), [1, 0, 1]);
        assert_eq!(polled_and_woken(2), [3, 0, 1]);
        assert_eq!(polled_and_woken(100), [MOST, 1, 2]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let sending = tokio::spawn(async move {
            for number in 0..10_000 {
                sender.send(number).await.unwrap();
            }
        });
        assert_eq!(at_once(sum(receiver), Arc::new(Bell::new().unwrap())).await, 10_000 * 9_999 / 2);
        sending.await.unwrap();
    }

    async fn sum(mut receiver: tokio::sync::mpsc::Receiver<u64>) -> u64 {
        let mut sum = 0;
        while let Some(number) = receiver.recv().await {
            sum += number;
        }
        sum
    }

    /// In a task of its own for each receiver, while threads that aren't the runtime's send.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_a_thread_that_is_not_the_runtimes_is_lost() {
        let bell = Arc::new(Bell::new().unwrap());
        let tasks = [(); 4].map(|()| {
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            let sending = std::thread::spawn(move || {
                for number in 0..10_000 {
                    sender.blocking_send(number).unwrap();
                }
            });
            (sending, tokio::spawn(at_once(sum(receiver), Arc::clone(&bell))))
        });
        for (sending, receiving) in tasks {
            assert_eq!(receiving.await.unwrap(), 10_000 * 9_999 / 2);
            sending.join().unwrap();
        }
        assert!(bell.line.rung_for.lock().unwrap().is_empty());
    }

    /// As long as nobody answers, a task is in there once, however often it is woken.
    #[tokio::test]
    async fn a_task_waits_for_the_bell_once_and_not_at_all_when_it_was_polled_since() {
        let bell = Arc::new(Bell::new().unwrap());
        let task = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut inner = None;
        let waits = poll_fn(|context| {
            inner = Some(context.waker().clone());
            Poll::<()>::Pending
        });
        let mut future = Box::pin(at_once(waits, Arc::clone(&bell)));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(future);
        let inner = inner.unwrap();
        let wake = || {
            let inner = inner.clone();
            std::thread::spawn(move || [(); 3].map(|()| inner.wake_by_ref())).join().unwrap();
        };
        wake();
        assert_eq!((bell.line.rung_for.lock().unwrap().len(), task.0.load(Ordering::Relaxed)), (1, 0));
        bell.line.answer();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }
}

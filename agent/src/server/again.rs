//! A task that wakes itself while it is polled goes on at once.
//!
//! hyper's connections do that for each request with a body: what reads the body asks the connection for it, and both
//! are the same task. tokio would put the task at the end of its queue and wake a thread that sleeps to take it from
//! there, which takes longer than to read a small file.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Polls in a row. Who wakes himself more often lets others have their turn.
const MOST: usize = 4;

const WAITS: u8 = 0;
const IS_POLLED: u8 = 1;
const WAS_WOKEN: u8 = 2;

/// What the future is told to wake.
#[derive(Default)]
struct Alarm {
    task: AtomicWaker,
    state: AtomicU8,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // While it is polled, who polls it sees to it.
        let seen = self.state.compare_exchange(IS_POLLED, WAS_WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if seen == Err(WAITS) {
            self.task.wake();
        }
    }
}

/// Runs a future, which is polled again at once when it was woken while it was polled.
pub(super) async fn at_once<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    poll_fn(move |context| {
        alarm.task.register(context.waker());
        for _ in 0..MOST {
            alarm.state.store(IS_POLLED, Ordering::Release);
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
            let mut future = pin!(at_once(poll_fn(|context| {
                polled += 1;
                if polled <= times {
                    context.waker().wake_by_ref();
                }
                other = Some(context.waker().clone());
                Poll::<()>::Pending
            })));
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            task.0.load(Ordering::Relaxed)
        };
        other.unwrap().wake();
        [polled, at_first, task.0.load(Ordering::Relaxed)]
    }

    #[test]
    fn who_wakes_himself_is_polled_again_without_his_task_being_woken_and_others_have_their_turn() {
        assert_eq!(polled_and_woken(0), [1, 0, 1]);
        assert_eq!(polled_and_woken(2), [3, 0, 1]);
        assert_eq!(polled_and_woken(100), [MOST, 1, 2]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let sending = tokio::spawn(async move {
            for number in 0..10_000 {
                sender.send(number).await.unwrap();
            }
        });
        let received = at_once(async {
            let mut sum = 0_u64;
            while let Some(number) = receiver.recv().await {
                sum += number;
            }
            sum
        });
        assert_eq!(received.await, 10_000 * 9_999 / 2);
        sending.await.unwrap();
    }
}

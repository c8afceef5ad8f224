//! Capturing log lines while other tests run.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Makes the lines of the crate reach the subscribers of threads. Call it before one is set.
///
/// If a thread without a subscriber is the first to reach a line, `tracing` disables that line for
/// all threads while there is only one subscriber. With this one there are two, and no thread is
/// without.
pub(crate) fn enable() {
    // Fails if it is set already.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
}

pub(crate) type Fields = BTreeMap<String, String>;

/// A log line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) fields: Fields,
    /// The name of the span that it is in.
    pub(crate) span: Option<String>,
}

/// Captures the lines and spans of the target `bearer_auth`.
#[derive(Clone, Default)]
pub(crate) struct Capture {
    pub(crate) lines: Arc<Mutex<Vec<Line>>>,
    /// The names and fields of spans, and the names of those that they follow from.
    pub(crate) spans: Arc<Mutex<Vec<(String, Fields)>>>,
    pub(crate) follows: Arc<Mutex<Vec<(String, String)>>>,
}

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != "bearer_auth" {
            return;
        }
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        self.lines.lock().unwrap().push(Line {
            level: *event.metadata().level(),
            fields,
            span: context.lookup_current().map(|it| it.name().to_owned()),
        });
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        if attributes.metadata().target() == "bearer_auth" {
            assert!(attributes.is_root());
            let mut fields = Fields::new();
            attributes.record(&mut Visitor(&mut fields));
            let name = attributes.metadata().name().to_owned();
            self.spans.lock().unwrap().push((name, fields));
        }
    }

    fn on_follows_from(&self, span: &Id, follows: &Id, context: Context<'_, S>) {
        let name = |id| context.span(id).unwrap().name().to_owned();
        let pair = (name(span), name(follows));
        self.follows.lock().unwrap().push(pair);
    }
}

impl Capture {
    /// Captures what this thread logs.
    pub(crate) fn start() -> (Self, DefaultGuard) {
        enable();
        let capture = Self::default();
        let subscriber = tracing_subscriber::registry().with(capture.clone());
        (capture, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn take(&self) -> Vec<Line> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    /// Returns the lines above `debug`.
    pub(crate) fn take_notable(&self) -> Vec<Line> {
        let mut lines = self.take();
        lines.retain(|line| line.level < Level::DEBUG);
        lines
    }
}

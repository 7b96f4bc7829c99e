//! Monitoring of a run: messages, progress, metrics, TensorBoard.
//!
//! * [`init_logging`]: messages to stderr, everything to the rank's log.
//! * [`Progress`]: a progress bar for long operations, silent without a terminal.
//! * [`Recorder`]: the metrics of a step, to both [`MetricsLog`] (the record) and [`TensorBoard`] (the view).

mod bar;
mod heartbeat;
mod logging;
mod metrics;
mod progress;
mod record;
mod resident;
mod style;
mod tail;
mod tensorboard;

pub use heartbeat::set_status_interval;
pub use logging::{Verbosity, init_logging, log_to};
pub use metrics::{MetricsError, MetricsLine, MetricsLog};
pub use progress::{InProgress, Progress, Unit};
pub use record::{DETAILS, Recorder, TIME, scalars, tag};
pub use resident::{forget_resident_peak, resident_bytes, resident_peak_bytes};
pub use style::{colored, colors_enabled};
pub use tail::MetricsTail;
pub use tensorboard::{HParam, HParams, TensorBoard};

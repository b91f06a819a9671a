//! The stand-ins and the workload as processes: alone (`workload`), and with a CUPTI client injected (`client`).

mod client;
mod support;
mod workload;

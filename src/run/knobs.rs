//! Settings of NVIDIA's profilers, typed: what a flavor takes for granted.

/// Settings of nsys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NsysKnobs {
    /// `--trace`; empty: nsys's own choice.
    pub trace: &'static [NsysTrace],
    /// When it records.
    pub range: NsysRange,
}

/// A kind of events that nsys records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NsysTrace {
    /// `cuda`.
    Cuda,
    /// `nvtx`.
    Nvtx,
}

/// When nsys records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NsysRange {
    /// From start to end.
    Whole,
    /// `--capture-range cudaProfilerApi --capture-range-end stop`: from cudaProfilerStart to cudaProfilerStop. With
    /// nsys's own choice, `stop-shutdown`, the command would be killed there.
    ProfilerApi,
}

/// Settings of ncu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NcuKnobs {
    /// `--section`; empty: ncu's own set.
    pub sections: &'static [&'static str],
    /// `--profile-from-start`; without it kernels count from cudaProfilerStart on.
    pub profile_from_start: bool,
    /// `--target-processes`; none: ncu's own choice, which differs between its versions.
    pub target_processes: Option<NcuTargets>,
    /// `--launch-count`: kernels that are profiled, each by running it several times. None: all.
    pub launch_count: Option<u32>,
}

/// Processes that ncu profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NcuTargets {
    /// `application-only`: the command's first.
    ApplicationOnly,
    /// `all`: those that it starts, too.
    All,
}

impl NsysKnobs {
    /// As nsys is by itself.
    pub const PLAIN: Self = Self {
        trace: &[],
        range: NsysRange::Whole,
    };
}

impl NcuKnobs {
    /// As ncu is by itself.
    pub const PLAIN: Self = Self {
        sections: &[],
        profile_from_start: true,
        target_processes: None,
        launch_count: None,
    };
}

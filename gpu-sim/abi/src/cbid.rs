//! Callback ids of the API functions that the stand-ins play, as CUPTI numbers them (12.4 to 13.5 alike), and CUPTI's
//! names for them. A runtime name carries the version of its signature.

macro_rules! table {
    ($(#[$doc:meta])* $list:ident $module:ident { $( $name:ident = $cbid:literal $text:literal; )* }) => {
        $(#[$doc])*
        pub mod $module {
            $( #[doc = concat!("`", $text, "`.")] pub const $name: u32 = $cbid; )*
        }
        $(#[$doc])*
        pub const $list: &[(u32, &str)] = &[ $( ($cbid, concat!($text, "\0")), )* ];
    };
}

table! {
    /// Functions of the driver; names end in NUL.
    DRIVER driver {
        CU_INIT = 1 "cuInit";
        CU_DRIVER_GET_VERSION = 2 "cuDriverGetVersion";
        CU_DEVICE_GET = 3 "cuDeviceGet";
        CU_DEVICE_GET_COUNT = 4 "cuDeviceGetCount";
        CU_DEVICE_GET_NAME = 5 "cuDeviceGetName";
        CU_DEVICE_GET_ATTRIBUTE = 9 "cuDeviceGetAttribute";
        CU_CTX_GET_DEVICE = 16 "cuCtxGetDevice";
        CU_CTX_SYNCHRONIZE = 17 "cuCtxSynchronize";
        CU_MODULE_LOAD_DATA = 19 "cuModuleLoadData";
        CU_MODULE_UNLOAD = 22 "cuModuleUnload";
        CU_MODULE_GET_FUNCTION = 23 "cuModuleGetFunction";
        CU_EVENT_CREATE = 118 "cuEventCreate";
        CU_EVENT_RECORD = 119 "cuEventRecord";
        CU_EVENT_QUERY = 120 "cuEventQuery";
        CU_EVENT_SYNCHRONIZE = 121 "cuEventSynchronize";
        CU_STREAM_CREATE = 124 "cuStreamCreate";
        CU_STREAM_QUERY = 125 "cuStreamQuery";
        CU_STREAM_SYNCHRONIZE = 126 "cuStreamSynchronize";
        CU_MEMSET_D8_ASYNC = 216 "cuMemsetD8Async";
        CU_CTX_CREATE_V2 = 235 "cuCtxCreate_v2";
        CU_MEM_GET_INFO_V2 = 242 "cuMemGetInfo_v2";
        CU_MEM_ALLOC_V2 = 243 "cuMemAlloc_v2";
        CU_MEM_FREE_V2 = 245 "cuMemFree_v2";
        CU_DEVICE_TOTAL_MEM_V2 = 259 "cuDeviceTotalMem_v2";
        CU_MEMCPY_HTO_DASYNC_V2 = 277 "cuMemcpyHtoDAsync_v2";
        CU_MEMCPY_DTO_HASYNC_V2 = 279 "cuMemcpyDtoHAsync_v2";
        CU_MEMCPY_DTO_DASYNC_V2 = 281 "cuMemcpyDtoDAsync_v2";
        CU_STREAM_WAIT_EVENT = 295 "cuStreamWaitEvent";
        CU_CTX_SET_CURRENT = 303 "cuCtxSetCurrent";
        CU_CTX_GET_CURRENT = 304 "cuCtxGetCurrent";
        CU_MEMCPY_ASYNC = 306 "cuMemcpyAsync";
        CU_LAUNCH_KERNEL = 307 "cuLaunchKernel";
        CU_PROFILER_START = 308 "cuProfilerStart";
        CU_PROFILER_STOP = 309 "cuProfilerStop";
        CU_MEMCPY_PEER_ASYNC = 319 "cuMemcpyPeerAsync";
        CU_CTX_DESTROY_V2 = 322 "cuCtxDestroy_v2";
        CU_CTX_PUSH_CURRENT_V2 = 323 "cuCtxPushCurrent_v2";
        CU_CTX_POP_CURRENT_V2 = 324 "cuCtxPopCurrent_v2";
        CU_EVENT_DESTROY_V2 = 325 "cuEventDestroy_v2";
        CU_STREAM_DESTROY_V2 = 326 "cuStreamDestroy_v2";
        CU_STREAM_CREATE_WITH_PRIORITY = 367 "cuStreamCreateWithPriority";
        CU_GET_ERROR_STRING = 372 "cuGetErrorString";
        CU_GET_ERROR_NAME = 373 "cuGetErrorName";
        CU_DEVICE_PRIMARY_CTX_RETAIN = 386 "cuDevicePrimaryCtxRetain";
        CU_DEVICE_PRIMARY_CTX_GET_STATE = 392 "cuDevicePrimaryCtxGetState";
        CU_DEVICE_GET_UUID = 482 "cuDeviceGetUuid";
        CU_STREAM_END_CAPTURE = 497 "cuStreamEndCapture";
        CU_STREAM_IS_CAPTURING = 499 "cuStreamIsCapturing";
        CU_GRAPH_CREATE = 501 "cuGraphCreate";
        CU_GRAPH_NODE_GET_TYPE = 509 "cuGraphNodeGetType";
        CU_GRAPH_LAUNCH = 514 "cuGraphLaunch";
        CU_GRAPH_EXEC_DESTROY = 516 "cuGraphExecDestroy";
        CU_GRAPH_DESTROY = 517 "cuGraphDestroy";
        CU_GRAPH_CLONE = 523 "cuGraphClone";
        CU_GRAPH_ADD_CHILD_GRAPH_NODE = 525 "cuGraphAddChildGraphNode";
        CU_GRAPH_CHILD_GRAPH_NODE_GET_GRAPH = 529 "cuGraphChildGraphNodeGetGraph";
        CU_GRAPH_GET_NODES = 534 "cuGraphGetNodes";
        CU_STREAM_BEGIN_CAPTURE_V2 = 539 "cuStreamBeginCapture_v2";
        CU_DEVICE_PRIMARY_CTX_RELEASE_V2 = 544 "cuDevicePrimaryCtxRelease_v2";
        CU_DEVICE_PRIMARY_CTX_RESET_V2 = 545 "cuDevicePrimaryCtxReset_v2";
        CU_STREAM_GET_CAPTURE_INFO_V2 = 629 "cuStreamGetCaptureInfo_v2";
        CU_GRAPH_INSTANTIATE_WITH_FLAGS = 643 "cuGraphInstantiateWithFlags";
        CU_DEVICE_GET_UUID_V2 = 647 "cuDeviceGetUuid_v2";
        CU_LAUNCH_KERNEL_EX = 652 "cuLaunchKernelEx";
        CU_GRAPH_INSTANTIATE_WITH_PARAMS = 656 "cuGraphInstantiateWithParams";
        CU_GRAPH_EXEC_UPDATE_V2 = 696 "cuGraphExecUpdate_v2";
        CU_STREAM_BEGIN_CAPTURE_TO_GRAPH = 720 "cuStreamBeginCaptureToGraph";
        CU_STREAM_GET_CAPTURE_INFO_V3 = 729 "cuStreamGetCaptureInfo_v3";
        CU_CTX_CREATE_V4 = 757 "cuCtxCreate_v4";
    }
}

table! {
    /// Functions of the runtime; names end in NUL.
    RUNTIME runtime {
        CUDA_DRIVER_GET_VERSION = 1 "cudaDriverGetVersion_v3020";
        CUDA_RUNTIME_GET_VERSION = 2 "cudaRuntimeGetVersion_v3020";
        CUDA_GET_DEVICE_COUNT = 3 "cudaGetDeviceCount_v3020";
        CUDA_GET_LAST_ERROR = 10 "cudaGetLastError_v3020";
        CUDA_PEEK_AT_LAST_ERROR = 11 "cudaPeekAtLastError_v3020";
        CUDA_SET_DEVICE = 16 "cudaSetDevice_v3020";
        CUDA_GET_DEVICE = 17 "cudaGetDevice_v3020";
        CUDA_MALLOC = 20 "cudaMalloc_v3020";
        CUDA_FREE = 22 "cudaFree_v3020";
        CUDA_MEMCPY_ASYNC = 41 "cudaMemcpyAsync_v3020";
        CUDA_MEMSET_ASYNC = 51 "cudaMemsetAsync_v3020";
        CUDA_STREAM_CREATE = 129 "cudaStreamCreate_v3020";
        CUDA_STREAM_SYNCHRONIZE = 131 "cudaStreamSynchronize_v3020";
        CUDA_EVENT_CREATE = 133 "cudaEventCreate_v3020";
        CUDA_EVENT_CREATE_WITH_FLAGS = 134 "cudaEventCreateWithFlags_v3020";
        CUDA_EVENT_RECORD = 135 "cudaEventRecord_v3020";
        CUDA_EVENT_DESTROY = 136 "cudaEventDestroy_v3020";
        CUDA_EVENT_SYNCHRONIZE = 137 "cudaEventSynchronize_v3020";
        CUDA_EVENT_QUERY = 138 "cudaEventQuery_v3020";
        CUDA_STREAM_WAIT_EVENT = 147 "cudaStreamWaitEvent_v3020";
        CUDA_MEMCPY_PEER_ASYNC = 161 "cudaMemcpyPeerAsync_v4000";
        CUDA_DEVICE_RESET = 164 "cudaDeviceReset_v3020";
        CUDA_DEVICE_SYNCHRONIZE = 165 "cudaDeviceSynchronize_v3020";
        CUDA_PROFILER_START = 171 "cudaProfilerStart_v4000";
        CUDA_PROFILER_STOP = 172 "cudaProfilerStop_v4000";
        CUDA_STREAM_CREATE_WITH_FLAGS = 198 "cudaStreamCreateWithFlags_v5000";
        CUDA_DEVICE_GET_ATTRIBUTE = 200 "cudaDeviceGetAttribute_v5000";
        CUDA_STREAM_DESTROY = 201 "cudaStreamDestroy_v5050";
        CUDA_STREAM_CREATE_WITH_PRIORITY = 202 "cudaStreamCreateWithPriority_v5050";
        CUDA_LAUNCH_KERNEL = 211 "cudaLaunchKernel_v7000";
        CUDA_GRAPH_CREATE = 286 "cudaGraphCreate_v10000";
        CUDA_GRAPH_ADD_CHILD_GRAPH_NODE = 298 "cudaGraphAddChildGraphNode_v10000";
        CUDA_GRAPH_CLONE = 301 "cudaGraphClone_v10000";
        CUDA_GRAPH_LAUNCH = 311 "cudaGraphLaunch_v10000";
        CUDA_GRAPH_EXEC_DESTROY = 313 "cudaGraphExecDestroy_v10000";
        CUDA_GRAPH_DESTROY = 314 "cudaGraphDestroy_v10000";
        CUDA_STREAM_BEGIN_CAPTURE = 315 "cudaStreamBeginCapture_v10000";
        CUDA_STREAM_END_CAPTURE = 319 "cudaStreamEndCapture_v10000";
        CUDA_GRAPH_EXEC_UPDATE = 335 "cudaGraphExecUpdate_v10020";
        CUDA_GRAPH_INSTANTIATE_WITH_FLAGS = 418 "cudaGraphInstantiateWithFlags_v11040";
        CUDA_LAUNCH_KERNEL_EX_C = 430 "cudaLaunchKernelExC_v11060";
        CUDA_GRAPH_INSTANTIATE_WITH_PARAMS = 436 "cudaGraphInstantiateWithParams_v12000";
        CUDA_GRAPH_INSTANTIATE = 443 "cudaGraphInstantiate_v12000";
        CUDA_STREAM_BEGIN_CAPTURE_TO_GRAPH = 452 "cudaStreamBeginCaptureToGraph_v12030";
    }
}

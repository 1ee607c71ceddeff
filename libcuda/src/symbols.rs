//! One trampoline for each symbol that `cust_raw` 0.11.3 declares, and the slot it jumps through.

#![allow(non_snake_case, reason = "the modules and functions carry the names of the C symbols")]

use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// `CUDA_ERROR_NOT_INITIALIZED`.
const NOT_INITIALIZED: c_int = 3;
/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: c_int = 100;
/// `CUDA_ERROR_NOT_FOUND`.
const NOT_FOUND: c_int = 500;

/// A symbol and the address its trampoline jumps to.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) slot: &'static AtomicPtr<c_void>,
}

/// Points every slot at what `resolve` finds for its name, and at an answer of `NOT_FOUND` where it finds nothing.
pub(crate) fn fill(resolve: impl Fn(&str) -> Option<*mut c_void>) {
    for entry in ENTRIES {
        let target = resolve(entry.name).unwrap_or(not_found as *mut c_void);
        entry.slot.store(target, Ordering::Release);
    }
}

/// Points every slot at an answer of `NO_DEVICE`.
pub(crate) fn fill_without_driver() {
    for entry in ENTRIES {
        entry.slot.store(no_device as *mut c_void, Ordering::Release);
    }
    cuGetErrorString::SLOT.store(no_driver_text as *mut c_void, Ordering::Release);
}

// The answers take no argument: the C calling conventions of both architectures leave the arguments to the caller.
extern "C" fn not_initialized() -> c_int {
    NOT_INITIALIZED
}

extern "C" fn no_device() -> c_int {
    NO_DEVICE
}

extern "C" fn not_found() -> c_int {
    NOT_FOUND
}

/// `cuGetErrorString` where there is no driver to ask: `cust`'s errors format themselves through it.
unsafe extern "C" fn no_driver_text(_code: c_int, text: *mut *const c_char) -> c_int {
    // SAFETY: the C contract of `cuGetErrorString` makes `text` writable for one pointer.
    unsafe { text.write(c"no CUDA driver could be loaded".as_ptr()) };
    0
}

macro_rules! trampolines {
    ($($name:ident)*) => {
        static ENTRIES: &[Entry] = &[
            Entry { name: "cuInit", slot: &CU_INIT },
            $(Entry { name: stringify!($name), slot: &$name::SLOT },)*
        ];

        $(mod $name {
            use super::*;

            pub(super) static SLOT: AtomicPtr<c_void> = AtomicPtr::new(not_initialized as *mut c_void);

            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name() {
                #[cfg(target_arch = "x86_64")]
                naked_asm!("jmp qword ptr [rip + {slot}]", slot = sym SLOT);
                // x16 is the register that the calling convention leaves to veneers such as this one.
                #[cfg(target_arch = "aarch64")]
                naked_asm!(
                    "adrp x16, {slot}",
                    "ldr x16, [x16, :lo12:{slot}]",
                    "br x16",
                    slot = sym SLOT
                );
            }
        })*
    };
}

static CU_INIT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// The first call of every program: it loads the driver, so that code which knows nothing of this crate works.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuInit(flags: c_uint) -> c_int {
    if crate::load().is_err() {
        return NO_DEVICE;
    }
    let entry = CU_INIT.load(Ordering::Acquire);
    // SAFETY: `load` stored either the driver's `cuInit` or `not_found`, which ignores its argument; both have this
    // C signature.
    let entry: unsafe extern "C" fn(c_uint) -> c_int = unsafe { core::mem::transmute(entry) };
    // SAFETY: `cuInit` takes any flags and answers an error for those it does not know.
    unsafe { entry(flags) }
}

trampolines! {
    cuGetErrorString
    cuArray3DCreate_v2
    cuArray3DGetDescriptor_v2
    cuArrayCreate_v2
    cuArrayDestroy
    cuArrayGetDescriptor_v2
    cuArrayGetPlane
    cuArrayGetSparseProperties
    cuCtxAttach
    cuCtxCreate_v2
    cuCtxCreate_v3
    cuCtxDestroy_v2
    cuCtxDetach
    cuCtxDisablePeerAccess
    cuCtxEnablePeerAccess
    cuCtxGetApiVersion
    cuCtxGetCacheConfig
    cuCtxGetCurrent
    cuCtxGetDevice
    cuCtxGetExecAffinity
    cuCtxGetFlags
    cuCtxGetLimit
    cuCtxGetSharedMemConfig
    cuCtxGetStreamPriorityRange
    cuCtxPopCurrent_v2
    cuCtxPushCurrent_v2
    cuCtxResetPersistingL2Cache
    cuCtxSetCacheConfig
    cuCtxSetCurrent
    cuCtxSetLimit
    cuCtxSetSharedMemConfig
    cuCtxSynchronize
    cuDestroyExternalMemory
    cuDestroyExternalSemaphore
    cuDeviceCanAccessPeer
    cuDeviceComputeCapability
    cuDeviceGet
    cuDeviceGetAttribute
    cuDeviceGetByPCIBusId
    cuDeviceGetCount
    cuDeviceGetDefaultMemPool
    cuDeviceGetExecAffinitySupport
    cuDeviceGetGraphMemAttribute
    cuDeviceGetLuid
    cuDeviceGetMemPool
    cuDeviceGetName
    cuDeviceGetNvSciSyncAttributes
    cuDeviceGetP2PAttribute
    cuDeviceGetPCIBusId
    cuDeviceGetProperties
    cuDeviceGetTexture1DLinearMaxWidth
    cuDeviceGetUuid
    cuDeviceGetUuid_v2
    cuDeviceGraphMemTrim
    cuDevicePrimaryCtxGetState
    cuDevicePrimaryCtxRelease_v2
    cuDevicePrimaryCtxReset_v2
    cuDevicePrimaryCtxRetain
    cuDevicePrimaryCtxSetFlags_v2
    cuDeviceSetGraphMemAttribute
    cuDeviceSetMemPool
    cuDeviceTotalMem_v2
    cuDriverGetVersion
    cuEventCreate
    cuEventDestroy_v2
    cuEventElapsedTime
    cuEventQuery
    cuEventRecord
    cuEventRecordWithFlags
    cuEventSynchronize
    cuExternalMemoryGetMappedBuffer
    cuExternalMemoryGetMappedMipmappedArray
    cuFlushGPUDirectRDMAWrites
    cuFuncGetAttribute
    cuFuncGetModule
    cuFuncSetAttribute
    cuFuncSetBlockShape
    cuFuncSetCacheConfig
    cuFuncSetSharedMemConfig
    cuFuncSetSharedSize
    cuGetErrorName
    cuGetExportTable
    cuGetProcAddress
    cuGraphAddChildGraphNode
    cuGraphAddDependencies
    cuGraphAddEmptyNode
    cuGraphAddEventRecordNode
    cuGraphAddEventWaitNode
    cuGraphAddExternalSemaphoresSignalNode
    cuGraphAddExternalSemaphoresWaitNode
    cuGraphAddHostNode
    cuGraphAddKernelNode
    cuGraphAddMemAllocNode
    cuGraphAddMemFreeNode
    cuGraphAddMemcpyNode
    cuGraphAddMemsetNode
    cuGraphChildGraphNodeGetGraph
    cuGraphClone
    cuGraphCreate
    cuGraphDebugDotPrint
    cuGraphDestroy
    cuGraphDestroyNode
    cuGraphEventRecordNodeGetEvent
    cuGraphEventRecordNodeSetEvent
    cuGraphEventWaitNodeGetEvent
    cuGraphEventWaitNodeSetEvent
    cuGraphExecChildGraphNodeSetParams
    cuGraphExecDestroy
    cuGraphExecEventRecordNodeSetEvent
    cuGraphExecEventWaitNodeSetEvent
    cuGraphExecExternalSemaphoresSignalNodeSetParams
    cuGraphExecExternalSemaphoresWaitNodeSetParams
    cuGraphExecHostNodeSetParams
    cuGraphExecKernelNodeSetParams
    cuGraphExecMemcpyNodeSetParams
    cuGraphExecMemsetNodeSetParams
    cuGraphExecUpdate
    cuGraphExternalSemaphoresSignalNodeGetParams
    cuGraphExternalSemaphoresSignalNodeSetParams
    cuGraphExternalSemaphoresWaitNodeGetParams
    cuGraphExternalSemaphoresWaitNodeSetParams
    cuGraphGetEdges
    cuGraphGetNodes
    cuGraphGetRootNodes
    cuGraphHostNodeGetParams
    cuGraphHostNodeSetParams
    cuGraphInstantiateWithFlags
    cuGraphInstantiate_v2
    cuGraphKernelNodeCopyAttributes
    cuGraphKernelNodeGetAttribute
    cuGraphKernelNodeGetParams
    cuGraphKernelNodeSetAttribute
    cuGraphKernelNodeSetParams
    cuGraphLaunch
    cuGraphMemAllocNodeGetParams
    cuGraphMemFreeNodeGetParams
    cuGraphMemcpyNodeGetParams
    cuGraphMemcpyNodeSetParams
    cuGraphMemsetNodeGetParams
    cuGraphMemsetNodeSetParams
    cuGraphNodeFindInClone
    cuGraphNodeGetDependencies
    cuGraphNodeGetDependentNodes
    cuGraphNodeGetType
    cuGraphReleaseUserObject
    cuGraphRemoveDependencies
    cuGraphRetainUserObject
    cuGraphUpload
    cuGraphicsMapResources
    cuGraphicsResourceGetMappedMipmappedArray
    cuGraphicsResourceGetMappedPointer_v2
    cuGraphicsResourceSetMapFlags_v2
    cuGraphicsSubResourceGetMappedArray
    cuGraphicsUnmapResources
    cuGraphicsUnregisterResource
    cuImportExternalMemory
    cuImportExternalSemaphore
    cuIpcCloseMemHandle
    cuIpcGetEventHandle
    cuIpcGetMemHandle
    cuIpcOpenEventHandle
    cuIpcOpenMemHandle_v2
    cuLaunch
    cuLaunchCooperativeKernel
    cuLaunchCooperativeKernelMultiDevice
    cuLaunchGrid
    cuLaunchGridAsync
    cuLaunchHostFunc
    cuLaunchKernel
    cuLinkAddData_v2
    cuLinkAddFile_v2
    cuLinkComplete
    cuLinkCreate_v2
    cuLinkDestroy
    cuMemAddressFree
    cuMemAddressReserve
    cuMemAdvise
    cuMemAllocAsync
    cuMemAllocFromPoolAsync
    cuMemAllocHost_v2
    cuMemAllocManaged
    cuMemAllocPitch_v2
    cuMemAlloc_v2
    cuMemCreate
    cuMemExportToShareableHandle
    cuMemFreeAsync
    cuMemFreeHost
    cuMemFree_v2
    cuMemGetAccess
    cuMemGetAddressRange_v2
    cuMemGetAllocationGranularity
    cuMemGetAllocationPropertiesFromHandle
    cuMemGetInfo_v2
    cuMemHostAlloc
    cuMemHostGetDevicePointer_v2
    cuMemHostGetFlags
    cuMemHostRegister_v2
    cuMemHostUnregister
    cuMemImportFromShareableHandle
    cuMemMap
    cuMemMapArrayAsync
    cuMemPoolCreate
    cuMemPoolDestroy
    cuMemPoolExportPointer
    cuMemPoolExportToShareableHandle
    cuMemPoolGetAccess
    cuMemPoolGetAttribute
    cuMemPoolImportFromShareableHandle
    cuMemPoolImportPointer
    cuMemPoolSetAccess
    cuMemPoolSetAttribute
    cuMemPoolTrimTo
    cuMemPrefetchAsync
    cuMemRangeGetAttribute
    cuMemRangeGetAttributes
    cuMemRelease
    cuMemRetainAllocationHandle
    cuMemSetAccess
    cuMemUnmap
    cuMemcpy
    cuMemcpy2DAsync_v2
    cuMemcpy2DUnaligned_v2
    cuMemcpy2D_v2
    cuMemcpy3DAsync_v2
    cuMemcpy3DPeer
    cuMemcpy3DPeerAsync
    cuMemcpy3D_v2
    cuMemcpyAsync
    cuMemcpyAtoA_v2
    cuMemcpyAtoD_v2
    cuMemcpyAtoHAsync_v2
    cuMemcpyAtoH_v2
    cuMemcpyDtoA_v2
    cuMemcpyDtoDAsync_v2
    cuMemcpyDtoD_v2
    cuMemcpyDtoHAsync_v2
    cuMemcpyDtoH_v2
    cuMemcpyHtoAAsync_v2
    cuMemcpyHtoA_v2
    cuMemcpyHtoDAsync_v2
    cuMemcpyHtoD_v2
    cuMemcpyPeer
    cuMemcpyPeerAsync
    cuMemsetD16Async
    cuMemsetD16_v2
    cuMemsetD2D16Async
    cuMemsetD2D16_v2
    cuMemsetD2D32Async
    cuMemsetD2D32_v2
    cuMemsetD2D8Async
    cuMemsetD2D8_v2
    cuMemsetD32Async
    cuMemsetD32_v2
    cuMemsetD8Async
    cuMemsetD8_v2
    cuMipmappedArrayCreate
    cuMipmappedArrayDestroy
    cuMipmappedArrayGetLevel
    cuMipmappedArrayGetSparseProperties
    cuModuleGetFunction
    cuModuleGetGlobal_v2
    cuModuleGetSurfRef
    cuModuleGetTexRef
    cuModuleLoad
    cuModuleLoadData
    cuModuleLoadDataEx
    cuModuleLoadFatBinary
    cuModuleUnload
    cuOccupancyAvailableDynamicSMemPerBlock
    cuOccupancyMaxActiveBlocksPerMultiprocessor
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags
    cuOccupancyMaxPotentialBlockSize
    cuOccupancyMaxPotentialBlockSizeWithFlags
    cuParamSetSize
    cuParamSetTexRef
    cuParamSetf
    cuParamSeti
    cuParamSetv
    cuPointerGetAttribute
    cuPointerGetAttributes
    cuPointerSetAttribute
    cuProfilerInitialize
    cuProfilerStart
    cuProfilerStop
    cuSignalExternalSemaphoresAsync
    cuStreamAddCallback
    cuStreamAttachMemAsync
    cuStreamBatchMemOp
    cuStreamBeginCapture_v2
    cuStreamCopyAttributes
    cuStreamCreate
    cuStreamCreateWithPriority
    cuStreamDestroy_v2
    cuStreamEndCapture
    cuStreamGetAttribute
    cuStreamGetCaptureInfo
    cuStreamGetCaptureInfo_v2
    cuStreamGetCtx
    cuStreamGetFlags
    cuStreamGetPriority
    cuStreamIsCapturing
    cuStreamQuery
    cuStreamSetAttribute
    cuStreamSynchronize
    cuStreamUpdateCaptureDependencies
    cuStreamWaitEvent
    cuStreamWaitValue32
    cuStreamWaitValue64
    cuStreamWriteValue32
    cuStreamWriteValue64
    cuSurfObjectCreate
    cuSurfObjectDestroy
    cuSurfObjectGetResourceDesc
    cuSurfRefGetArray
    cuSurfRefSetArray
    cuTexObjectCreate
    cuTexObjectDestroy
    cuTexObjectGetResourceDesc
    cuTexObjectGetResourceViewDesc
    cuTexObjectGetTextureDesc
    cuTexRefCreate
    cuTexRefDestroy
    cuTexRefGetAddressMode
    cuTexRefGetAddress_v2
    cuTexRefGetArray
    cuTexRefGetBorderColor
    cuTexRefGetFilterMode
    cuTexRefGetFlags
    cuTexRefGetFormat
    cuTexRefGetMaxAnisotropy
    cuTexRefGetMipmapFilterMode
    cuTexRefGetMipmapLevelBias
    cuTexRefGetMipmapLevelClamp
    cuTexRefGetMipmappedArray
    cuTexRefSetAddress2D_v3
    cuTexRefSetAddressMode
    cuTexRefSetAddress_v2
    cuTexRefSetArray
    cuTexRefSetBorderColor
    cuTexRefSetFilterMode
    cuTexRefSetFlags
    cuTexRefSetFormat
    cuTexRefSetMaxAnisotropy
    cuTexRefSetMipmapFilterMode
    cuTexRefSetMipmapLevelBias
    cuTexRefSetMipmapLevelClamp
    cuTexRefSetMipmappedArray
    cuThreadExchangeStreamCaptureMode
    cuUserObjectCreate
    cuUserObjectRelease
    cuUserObjectRetain
    cuWaitExternalSemaphoresAsync
}

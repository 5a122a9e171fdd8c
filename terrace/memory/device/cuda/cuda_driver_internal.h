// NVIDIA's driver (libcuda.so.1), found at run time: what of its API the copies need, declared
// here, so that Terrace is built where there is no CUDA toolkit and runs where there is no driver.
// Threading: immutable once loaded.  Owns: the library, for good.  Waits: loading reads files.
// Source: the CUDA driver API's reference, versions 11 to 13, whose names and values these are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "terrace/base/status.h"

namespace terrace::memory::cuda {

using Address = std::uint64_t;       // CUdeviceptr
using DeviceNumber = int;            // CUdevice
using Context = struct ContextTag*;  // CUcontext, and so on
using Module = struct ModuleTag*;
using Function = struct FunctionTag*;
using Stream = struct StreamTag*;
using Event = struct EventTag*;

// CUresult: the few values that are treated differently.
using Answer = int;
inline constexpr Answer kSuccess = 0;
inline constexpr Answer kInvalidValue = 1;
inline constexpr Answer kOutOfMemory = 2;
inline constexpr Answer kNotReady = 600;

inline constexpr unsigned kStreamNonBlocking = 1;   // CU_STREAM_NON_BLOCKING
inline constexpr unsigned kEventDisableTiming = 2;  // CU_EVENT_DISABLE_TIMING
inline constexpr unsigned kHostAllocMapped = 2;     // CU_MEMHOSTALLOC_DEVICEMAP
inline constexpr int kCaptureRelaxed = 2;           // CU_STREAM_CAPTURE_MODE_RELAXED
inline constexpr int kPointerMemoryType = 2;        // CU_POINTER_ATTRIBUTE_MEMORY_TYPE
inline constexpr int kPointerDevice = 9;            // CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
inline constexpr unsigned kMemoryOfDevice = 2;      // CU_MEMORYTYPE_DEVICE
inline constexpr int kJitErrorLog = 5;              // CU_JIT_ERROR_LOG_BUFFER
inline constexpr int kJitErrorLogBytes = 6;         // CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES

struct Driver {
  Answer (*init)(unsigned flags) = nullptr;
  Answer (*error_name)(Answer, const char**) = nullptr;
  Answer (*device_get)(DeviceNumber*, int ordinal) = nullptr;
  Answer (*device_count)(int*) = nullptr;
  Answer (*device_name)(char*, int bytes, DeviceNumber) = nullptr;
  Answer (*context_retain)(Context*, DeviceNumber) = nullptr;
  Answer (*context_release)(DeviceNumber) = nullptr;
  Answer (*context_state)(DeviceNumber, unsigned* flags, int* is_active) = nullptr;
  Answer (*context_push)(Context) = nullptr;
  Answer (*context_pop)(Context*) = nullptr;
  Answer (*capture_mode)(int* exchanged) = nullptr;  // Of the calling thread.
  Answer (*pointer_attribute)(void*, int attribute, Address) = nullptr;
  Answer (*allocate)(Address*, std::size_t) = nullptr;
  Answer (*free)(Address) = nullptr;
  Answer (*allocate_host)(void**, std::size_t, unsigned flags) = nullptr;
  Answer (*free_host)(void*) = nullptr;
  Answer (*register_host)(void*, std::size_t, unsigned flags) = nullptr;
  Answer (*unregister_host)(void*) = nullptr;
  Answer (*copy_to_device)(Address, const void*, std::size_t, Stream) = nullptr;
  Answer (*copy_to_host)(void*, Address, std::size_t, Stream) = nullptr;
  Answer (*stream_create)(Stream*, unsigned flags) = nullptr;
  Answer (*stream_destroy)(Stream) = nullptr;
  Answer (*event_create)(Event*, unsigned flags) = nullptr;
  Answer (*event_record)(Event, Stream) = nullptr;
  Answer (*event_query)(Event) = nullptr;
  Answer (*event_destroy)(Event) = nullptr;
  Answer (*module_load)(Module*, const void* image, unsigned count, int* options,
                        void** values) = nullptr;
  Answer (*module_unload)(Module) = nullptr;
  Answer (*module_function)(Function*, Module, const char* name) = nullptr;
  Answer (*launch)(Function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream,
                   void** arguments, void** extra) = nullptr;
};

inline constexpr const char* kDriverName = "libcuda.so.1";

// Finds library and functions, and nothing more. Errors: kUnavailable names what is missing and the
// way out.
[[nodiscard]] Result<Driver> open_driver(const char* name);
// The process's driver, initialised. Errors: as above; kUnavailable = it refuses to work (no GPU,
// a kernel module of another version), with its own words.
[[nodiscard]] Result<const Driver*> load_driver();

// `cuMemcpyDtoHAsync: CUDA_ERROR_ILLEGAL_ADDRESS (700)`.
[[nodiscard]] std::string describe(const Driver& driver, Answer answer, const char* operation);

}  // namespace terrace::memory::cuda

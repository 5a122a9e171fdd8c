#include <dlfcn.h>
#include <fmt/format.h>

#include "terrace/base/mutex.h"
#include "terrace/memory/device/cuda/cuda_driver_internal.h"

namespace terrace::memory::cuda {
namespace {

constexpr const char* kWayOut =
    "it comes with NVIDIA's driver (Debian and Ubuntu: libcuda1; in a container: --gpus, or the "
    "NVIDIA container runtime); without it only engines whose KV cache lies in ordinary memory "
    "can be served";

template <typename Pointer>
bool find(void* library, const char* name, Pointer& function) {
  function = reinterpret_cast<Pointer>(::dlsym(library, name));
  return function != nullptr;
}

// The name of what is not there; null = everything is. The versions behind the names are those that
// the toolkit's header maps the plain names to since CUDA 11.
const char* find_all(void* library, Driver& driver) {
  const char* missing = nullptr;
  const auto need = [&](const char* name, auto& function) {
    if (!find(library, name, function) && missing == nullptr) missing = name;
  };
  need("cuInit", driver.init);
  need("cuGetErrorName", driver.error_name);
  need("cuDeviceGet", driver.device_get);
  need("cuDeviceGetCount", driver.device_count);
  need("cuDeviceGetName", driver.device_name);
  need("cuDevicePrimaryCtxRetain", driver.context_retain);
  need("cuDevicePrimaryCtxRelease_v2", driver.context_release);
  need("cuDevicePrimaryCtxGetState", driver.context_state);
  need("cuCtxPushCurrent_v2", driver.context_push);
  need("cuCtxPopCurrent_v2", driver.context_pop);
  need("cuThreadExchangeStreamCaptureMode", driver.capture_mode);
  need("cuPointerGetAttribute", driver.pointer_attribute);
  need("cuMemAlloc_v2", driver.allocate);
  need("cuMemFree_v2", driver.free);
  need("cuMemHostAlloc", driver.allocate_host);
  need("cuMemFreeHost", driver.free_host);
  need("cuMemHostRegister_v2", driver.register_host);
  need("cuMemHostUnregister", driver.unregister_host);
  need("cuMemcpyHtoDAsync_v2", driver.copy_to_device);
  need("cuMemcpyDtoHAsync_v2", driver.copy_to_host);
  need("cuStreamCreate", driver.stream_create);
  need("cuStreamDestroy_v2", driver.stream_destroy);
  need("cuEventCreate", driver.event_create);
  need("cuEventRecord", driver.event_record);
  need("cuEventQuery", driver.event_query);
  need("cuEventDestroy_v2", driver.event_destroy);
  need("cuModuleLoadDataEx", driver.module_load);
  need("cuModuleUnload", driver.module_unload);
  need("cuModuleGetFunction", driver.module_function);
  need("cuLaunchKernel", driver.launch);
  return missing;
}

}  // namespace

Result<Driver> open_driver(const char* name) {
  // Never closed: the engine uses it as well, and it leaves threads behind.
  void* library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* reason = ::dlerror();
    return fail(Code::kUnavailable,
                fmt::format("cuda: GPU memory needs {}: {}; {}", name,
                            reason == nullptr ? "?" : reason, kWayOut),
                Scope::kNode);
  }
  Driver driver;
  if (const char* missing = find_all(library, driver); missing != nullptr) {
    return fail(Code::kUnavailable,
                fmt::format("cuda: {} has no {}: a driver of CUDA 11 or newer is needed; {}", name,
                            missing, kWayOut),
                Scope::kNode);
  }
  return driver;
}

Result<const Driver*> load_driver() {
  static Mutex mutex;
  static Driver loaded;
  const MutexLock lock(mutex);
  if (loaded.init != nullptr) return &loaded;
  TERRACE_ASSIGN_OR_RETURN(const Driver driver, open_driver(kDriverName));
  if (const Answer answer = driver.init(0); answer != kSuccess) {
    return fail(Code::kUnavailable,
                fmt::format("cuda: {}: the driver finds no GPU it can use; nvidia-smi says more",
                            describe(driver, answer, "cuInit")),
                Scope::kNode);
  }
  loaded = driver;
  return &loaded;
}

std::string describe(const Driver& driver, Answer answer, const char* operation) {
  const char* name = nullptr;
  if (driver.error_name == nullptr || driver.error_name(answer, &name) != kSuccess) name = nullptr;
  return fmt::format("{}: {} ({})", operation, name == nullptr ? "?" : name, answer);
}

}  // namespace terrace::memory::cuda

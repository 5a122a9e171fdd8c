// NVIDIA's driver on the CPU, for tests: GPU memory is ordinary memory, the kernels are the same
// code as on the device, streams run when they are asked, each in its own order and against each
// other in any. Calls can be made to fail, kernels to be left out, the GPU to hang.
// Threading: thread-safe. One at a time in a process.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/memory/device/cuda/cuda_driver_internal.h"
#include "terrace/memory/device/cuda/page_kernel_internal.h"

namespace terrace::memory::cuda {

// All 32 threads of a warp, one after the other.
class HostCrew {
 public:
  HostCrew() {
    for (std::uint32_t i = 0; i < kCrew; ++i) keys_[i] = share_keys(i);
  }
  [[nodiscard]] std::uint32_t thread(std::uint32_t i) const { return i; }
  [[nodiscard]] const ShareKeys& keys(std::uint32_t i) const { return keys_[i]; }
  void add_pairs(Pair (&pairs)[kCrew]) const {
    Pair sums[kPairs];
    for (std::uint32_t i = 0; i < kCrew; ++i) {
      sums[i % kPairs].even += pairs[i].even;
      sums[i % kPairs].odd += pairs[i].odd;
    }
    for (std::uint32_t i = 0; i < kCrew; ++i) pairs[i] = sums[i % kPairs];
  }
  void add_folds(std::uint64_t (&folds)[kCrew]) const {
    std::uint64_t sum = 0;
    for (std::uint32_t i = 0; i < kPairs; ++i) sum += folds[i];
    for (std::uint64_t& fold : folds) fold = sum;
  }

 private:
  ShareKeys keys_[kCrew];
};

struct StreamTag {
  std::deque<std::function<void()>> work;
};
struct EventTag {
  int pending = 0;  // Records that no stream has reached.
};

class FakeGpu {
 public:
  static constexpr Answer kIllegalAddress = 700;
  static constexpr Answer kInvalidContext = 201;

  explicit FakeGpu(std::uint64_t seed = 1) : rng_(seed) { current() = this; }
  FakeGpu(const FakeGpu&) = delete;
  FakeGpu& operator=(const FakeGpu&) = delete;
  ~FakeGpu() {
    for (const auto& [address, bytes] : memory_) std::free(at<void>(address));
    for (void* memory : host_) std::free(memory);
    for (StreamTag* stream : streams_) delete stream;
    for (EventTag* event : events_) delete event;
    current() = nullptr;
  }

  static Driver driver();

  // What a device made and did not give back; the engine's own memory counts as memory.
  [[nodiscard]] std::size_t held() const {
    return memory_.size() + host_.size() + streams_.size() + events_.size() + modules_ + contexts_;
  }
  static int& mode() {  // Of the thread, as to captured graphs; 0 = global, how all begin.
    static thread_local int mode = 0;
    return mode;
  }
  static int& depth() {  // Of the thread's stack of contexts.
    static thread_local int depth = 0;
    return depth;
  }

  // The n-th call from now on (0 = the next) and, if `is_sticky`, all after it.
  void fail_after(int calls, Answer answer, bool is_sticky) {
    const std::lock_guard lock(mutex_);
    countdown_ = calls;
    failure_ = answer;
    is_sticky_ = is_sticky;
  }
  void fail_no_more() { fail_after(-1, kSuccess, false); }
  // Whether the failure was met.
  [[nodiscard]] bool has_failed() const { return countdown_ < 0; }
  std::atomic<bool> is_hanging{false};
  std::atomic<bool> leaves_out_kernels{false};
  std::atomic<bool> leaves_out_uploads{false};
  std::atomic<bool> leaves_out_downloads{false};
  std::atomic<int> launches{0};
  std::atomic<int> registered{0};

  Answer allocate(Address* address, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    void* memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
    std::memset(memory, 0xCD, bytes);
    *address = reinterpret_cast<std::uintptr_t>(memory);
    memory_[*address] = bytes;
    return kSuccess;
  }
  void run_all() {
    const std::lock_guard lock(mutex_);
    for (StreamTag* stream : streams_) {
      while (run_one(stream)) {
      }
    }
  }

 private:
  friend struct FakeCalls;

  static FakeGpu*& current() {
    static FakeGpu* gpu = nullptr;
    return gpu;
  }
  // What stands before every call but those about contexts.
  Answer enter() {
    if (depth() == 0) return kInvalidContext;
    EXPECT_EQ(mode(), kCaptureRelaxed) << "would break a graph that is being captured";
    if (failure_ == kSuccess || countdown_ > 0) {
      if (failure_ != kSuccess) --countdown_;
      return kSuccess;
    }
    if (countdown_ < 0 && !is_sticky_) return kSuccess;
    countdown_ = -1;
    // As in a broken context: what waits is never run.
    for (StreamTag* stream : streams_) {
      if (is_sticky_) stream->work.clear();
    }
    return failure_;
  }
  bool run_one(StreamTag* stream);
  Answer enqueue(Stream stream, std::function<void()> work);
  Answer query(Event event);
  void run_kernel(bool is_out, PartEntry* parts, std::uint32_t count, const PieceEntry* pieces,
                  std::uint32_t pages, const std::uint32_t* cancel);

  std::recursive_mutex mutex_;
  Rng rng_;
  std::map<Address, std::size_t> memory_;
  std::set<void*> host_;
  std::vector<StreamTag*> streams_;
  std::set<EventTag*> events_;
  std::size_t modules_ = 0;
  std::size_t contexts_ = 0;
  int countdown_ = -1;
  Answer failure_ = kSuccess;
  bool is_sticky_ = false;
};

inline bool FakeGpu::run_one(StreamTag* stream) {
  if (stream->work.empty()) return false;
  stream->work.front()();
  stream->work.pop_front();
  return true;
}

inline Answer FakeGpu::enqueue(Stream stream, std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  if (const Answer answer = enter(); answer != kSuccess) return answer;
  stream->work.push_back(std::move(work));
  return kSuccess;
}

// Lets some work of any stream happen, then looks.
inline Answer FakeGpu::query(Event event) {
  const std::lock_guard lock(mutex_);
  if (const Answer answer = enter(); answer != kSuccess) return answer;
  if (is_hanging) return kNotReady;
  for (int i = 0; i < 3; ++i) (void)run_one(streams_[rng_.below(streams_.size())]);
  return event->pending == 0 ? kSuccess : kNotReady;
}

inline void FakeGpu::run_kernel(bool is_out, PartEntry* parts, std::uint32_t count,
                                const PieceEntry* pieces, std::uint32_t pages,
                                const std::uint32_t* cancel) {
  if (leaves_out_kernels || (!is_out && __atomic_load_n(cancel, __ATOMIC_SEQ_CST) != 0)) return;
  static const HostCrew crew;
  for (std::uint32_t page = 0; page < pages; ++page) {
    PartEntry& entry = parts[part_at(parts, count, page)];
    const std::uint32_t own = page - entry.first_page;
    entry.sum += is_out ? copy_page<true, kCrew>(entry, pieces, own, crew)
                        : copy_page<false, kCrew>(entry, pieces, own, crew);
    ++entry.pages;
  }
}

// The driver's functions, which know no object.
struct FakeCalls {
  static FakeGpu& gpu() { return *FakeGpu::current(); }
  static Answer enter() {
    const std::lock_guard lock(gpu().mutex_);
    return gpu().enter();
  }
  static void about_contexts(Driver& driver);
  static void about_memory(Driver& driver);
  static void about_streams(Driver& driver);
  static void about_kernels(Driver& driver);
};

inline void FakeCalls::about_contexts(Driver& driver) {
  driver.init = [](unsigned) { return kSuccess; };
  driver.error_name = [](Answer, const char** name) {
    *name = "CUDA_ERROR_OF_A_TEST";
    return kSuccess;
  };
  driver.device_get = [](DeviceNumber* device, int ordinal) {
    *device = ordinal;
    return kSuccess;
  };
  driver.device_count = [](int* count) {
    *count = 1;
    return kSuccess;
  };
  driver.device_name = [](char* name, int bytes, DeviceNumber) {
    std::strncpy(name, "Fake GPU", static_cast<std::size_t>(bytes));
    return kSuccess;
  };
  driver.context_retain = [](Context* context, DeviceNumber) {
    const std::lock_guard lock(gpu().mutex_);
    ++gpu().contexts_;
    *context = reinterpret_cast<Context>(&gpu());
    return kSuccess;
  };
  driver.context_release = [](DeviceNumber) {
    const std::lock_guard lock(gpu().mutex_);
    --gpu().contexts_;
    return kSuccess;
  };
  driver.context_state = [](DeviceNumber, unsigned* flags, int* is_active) {
    const std::lock_guard lock(gpu().mutex_);
    *flags = 0;
    *is_active = gpu().memory_.empty() ? 0 : 1;  // Whoever has memory has a context.
    return kSuccess;
  };
  driver.context_push = [](Context) {
    ++FakeGpu::depth();
    return kSuccess;
  };
  driver.capture_mode = [](int* exchanged) {
    std::swap(FakeGpu::mode(), *exchanged);
    return kSuccess;
  };
  driver.context_pop = [](Context* context) {
    *context = reinterpret_cast<Context>(&gpu());
    --FakeGpu::depth();
    return kSuccess;
  };
}

inline void FakeCalls::about_memory(Driver& driver) {
  driver.pointer_attribute = [](void* value, int attribute, Address pointer) {
    const std::lock_guard lock(gpu().mutex_);
    if (FakeGpu::depth() == 0) return FakeGpu::kInvalidContext;
    auto found = gpu().memory_.upper_bound(pointer);
    if (found == gpu().memory_.begin()) return kInvalidValue;
    --found;
    if (pointer >= found->first + found->second) return kInvalidValue;
    const unsigned answer = attribute == kPointerMemoryType ? kMemoryOfDevice : 0;
    std::memcpy(value, &answer, sizeof answer);
    return kSuccess;
  };
  driver.allocate = [](Address* address, std::size_t bytes) {
    const Answer answer = enter();
    return answer == kSuccess ? gpu().allocate(address, bytes) : answer;
  };
  driver.free = [](Address address) {
    if (const Answer answer = enter(); answer != kSuccess) return answer;
    const std::lock_guard lock(gpu().mutex_);
    gpu().memory_.erase(address);
    std::free(at<void>(address));
    return kSuccess;
  };
  driver.allocate_host = [](void** memory, std::size_t bytes, unsigned) {
    if (const Answer answer = enter(); answer != kSuccess) return answer;
    const std::lock_guard lock(gpu().mutex_);
    *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    gpu().host_.insert(*memory);
    return kSuccess;
  };
  driver.free_host = [](void* memory) {
    if (const Answer answer = enter(); answer != kSuccess) return answer;
    const std::lock_guard lock(gpu().mutex_);
    gpu().host_.erase(memory);
    std::free(memory);
    return kSuccess;
  };
  driver.register_host = [](void*, std::size_t, unsigned) {
    const Answer answer = enter();
    if (answer == kSuccess) ++gpu().registered;
    return answer;
  };
  driver.unregister_host = [](void*) {
    const Answer answer = enter();
    if (answer == kSuccess) --gpu().registered;
    return answer;
  };
}

inline void FakeCalls::about_streams(Driver& driver) {
  driver.copy_to_device = [](Address target, const void* source, std::size_t bytes, Stream stream) {
    return gpu().enqueue(stream, [=] {
      if (!gpu().leaves_out_uploads) std::memcpy(at<void>(target), source, bytes);
    });
  };
  driver.copy_to_host = [](void* target, Address source, std::size_t bytes, Stream stream) {
    return gpu().enqueue(stream, [=] {
      if (!gpu().leaves_out_downloads) std::memcpy(target, at<void>(source), bytes);
    });
  };
  driver.stream_create = [](Stream* stream, unsigned) {
    if (const Answer answer = enter(); answer != kSuccess) return answer;
    const std::lock_guard lock(gpu().mutex_);
    *stream = gpu().streams_.emplace_back(new StreamTag);
    return kSuccess;
  };
  driver.stream_destroy = [](Stream stream) {
    if (const Answer answer = enter(); answer != kSuccess) return answer;
    const std::lock_guard lock(gpu().mutex_);
    EXPECT_TRUE(stream->work.empty()) << "destroyed with work under way";
    std::erase(gpu().streams_, stream);
    delete stream;
    return kSuccess;
  };
  driver.event_create = [](Event* event, unsigned) {
    if (const Answer answer = enter(); answer != kSuccess) return answer;
    const std::lock_guard lock(gpu().mutex_);
    *event = *gpu().events_.insert(new EventTag).first;
    return kSuccess;
  };
  driver.event_record = [](Event event, Stream stream) {
    const std::lock_guard lock(gpu().mutex_);
    const Answer answer = gpu().enqueue(stream, [event] { --event->pending; });
    if (answer == kSuccess) ++event->pending;
    return answer;
  };
  driver.event_query = [](Event event) { return gpu().query(event); };
  driver.event_destroy = [](Event event) {
    if (const Answer answer = enter(); answer != kSuccess) return answer;
    const std::lock_guard lock(gpu().mutex_);
    gpu().events_.erase(event);
    delete event;
    return kSuccess;
  };
}

inline void FakeCalls::about_kernels(Driver& driver) {
  driver.module_load = [](Module* module, const void* image, unsigned count, int* options,
                          void** values) {
    if (const Answer answer = enter(); answer != kSuccess) {
      for (unsigned i = 0; i < count; ++i) {
        if (options[i] == kJitErrorLog) std::strcpy(static_cast<char*>(values[i]), "line 7");
      }
      return answer;
    }
    const std::string text = static_cast<const char*>(image);
    EXPECT_NE(text.find(".visible .entry terrace_copy_out("), std::string::npos);
    EXPECT_NE(text.find(".visible .entry terrace_copy_in("), std::string::npos);
    const std::lock_guard lock(gpu().mutex_);
    ++gpu().modules_;
    *module = reinterpret_cast<Module>(&gpu());
    return kSuccess;
  };
  driver.module_unload = [](Module) {
    if (const Answer answer = enter(); answer != kSuccess) return answer;
    const std::lock_guard lock(gpu().mutex_);
    --gpu().modules_;
    return kSuccess;
  };
  static int tags[2];  // Of copy_out and copy_in.
  driver.module_function = [](Function* function, Module, const char* name) {
    if (const Answer answer = enter(); answer != kSuccess) return answer;
    *function = reinterpret_cast<Function>(&tags[std::string_view(name) == "terrace_copy_in"]);
    return kSuccess;
  };
  driver.launch = [](Function function, unsigned blocks, unsigned, unsigned, unsigned threads,
                     unsigned, unsigned, unsigned, Stream stream, void** arguments, void**) {
    const bool is_out = reinterpret_cast<int*>(function) == &tags[0];
    auto* const parts = *static_cast<PartEntry**>(arguments[0]);
    const auto count = *static_cast<std::uint32_t*>(arguments[1]);
    auto* const pieces = *static_cast<PieceEntry**>(arguments[2]);
    const auto pages = *static_cast<std::uint32_t*>(arguments[3]);
    auto* const cancel = *static_cast<std::uint32_t**>(arguments[4]);
    EXPECT_GE(blocks * threads / kCrew, pages);
    ++gpu().launches;
    return gpu().enqueue(stream,
                         [=] { gpu().run_kernel(is_out, parts, count, pieces, pages, cancel); });
  };
}

inline Driver FakeGpu::driver() {
  Driver driver;
  FakeCalls::about_contexts(driver);
  FakeCalls::about_memory(driver);
  FakeCalls::about_streams(driver);
  FakeCalls::about_kernels(driver);
  return driver;
}

}  // namespace terrace::memory::cuda

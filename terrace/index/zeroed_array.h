// Fixed array of plain values that start as zero bytes. The kernel gives a page at its first touch,
// so creating one of any size is instant and an empty cache costs no memory. Threading:
// thread-compatible.  Owns: its mapping.  Waits: never (first touches fault). Memory: count x
// sizeof(T), rounded up to 4 KiB; in huge pages where the kernel has some to give.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "terrace/base/status.h"
#include "terrace/base/strong.h"

namespace terrace::index {

namespace detail {
// Null if the kernel refuses.
[[nodiscard]] void* map_zeroed(std::size_t bytes);
void unmap(void* start, std::size_t bytes);
}  // namespace detail

template <typename T>
class ZeroedArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  // Errors: kExhausted if the kernel refuses the memory.
  static Result<ZeroedArray> create(std::uint64_t count) {
    const auto bytes = round_up(Bytes(count * sizeof(T)), 4_KiB).value();
    void* start = detail::map_zeroed(bytes);
    if (start == nullptr) {
      return fail(Code::kExhausted, "mmap of " + std::to_string(bytes) +
                                        " bytes for the block catalog refused: lower the tier's "
                                        "size or raise the memory limit");
    }
    return ZeroedArray(static_cast<T*>(start), count, bytes);
  }
  ZeroedArray(ZeroedArray&& other) noexcept
      : start_(std::exchange(other.start_, nullptr)),
        count_(std::exchange(other.count_, 0)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  ZeroedArray& operator=(ZeroedArray&& other) noexcept {
    std::swap(start_, other.start_);
    std::swap(count_, other.count_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~ZeroedArray() {
    if (start_ != nullptr) detail::unmap(start_, bytes_);
  }

  [[nodiscard]] T& operator[](std::uint64_t i) { return start_[i]; }
  [[nodiscard]] const T& operator[](std::uint64_t i) const { return start_[i]; }
  [[nodiscard]] const T* data() const { return start_; }
  [[nodiscard]] std::span<T> all() { return {start_, count_}; }
  [[nodiscard]] std::span<const T> all() const { return {start_, count_}; }
  [[nodiscard]] std::uint64_t size() const { return count_; }
  [[nodiscard]] Bytes memory() const { return Bytes(bytes_); }

 private:
  ZeroedArray(T* start, std::uint64_t count, std::size_t bytes)
      : start_(start), count_(count), bytes_(bytes) {}
  T* start_;
  std::uint64_t count_;
  std::size_t bytes_;
};

}  // namespace terrace::index

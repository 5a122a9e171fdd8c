// Little-endian integers to and from byte strings; the reader never goes past its end.
// Threading: thread-compatible.  Waits: never.  Errors: Reader::is_ok() turns false and stays so.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace terrace::wire {

static_assert(std::endian::native == std::endian::little, "integers are copied as they are");

template <std::unsigned_integral T>
void put(std::string& out, T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
  out.append(bytes.data(), bytes.size());
}

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  // Zero once the bytes have run out.
  template <std::unsigned_integral T>
  [[nodiscard]] T take() {
    T value = 0;
    if (rest_.size() < sizeof(T)) {
      is_ok_ = false;
      rest_ = {};
      return 0;
    }
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  template <typename StrongInteger>
  [[nodiscard]] StrongInteger take_as() {
    return StrongInteger(take<typename StrongInteger::rep>());
  }
  // The next `count` bytes as text; empty once the bytes have run out.
  [[nodiscard]] std::string take_string(std::size_t count) {
    if (rest_.size() < count) {
      is_ok_ = false;
      rest_ = {};
      return {};
    }
    std::string text(count, '\0');
    if (count != 0) std::memcpy(text.data(), rest_.data(), count);
    rest_ = rest_.subspan(count);
    return text;
  }
  // Whether `count` items of at least `item_bytes` each can still follow: ask before allocating.
  [[nodiscard]] bool has_room_for(std::uint64_t count, std::size_t item_bytes) const {
    return count <= rest_.size() / item_bytes;
  }
  void mark_bad() { is_ok_ = false; }
  [[nodiscard]] bool is_ok() const { return is_ok_; }
  [[nodiscard]] bool is_at_end() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
  bool is_ok_ = true;
};

// The next `kSize` bytes; zeros once they have run out.
template <std::size_t kSize>
std::array<std::uint8_t, kSize> take_bytes(Reader& reader) {
  std::array<std::uint8_t, kSize> bytes{};
  const std::string text = reader.take_string(kSize);
  std::copy(text.begin(), text.end(), bytes.begin());
  return bytes;
}

}  // namespace terrace::wire

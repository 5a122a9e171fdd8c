// SHA-256 over a list of byte strings, each with its length before it, so that no two lists
// collide. The only door to OpenSSL for rooms above. Threading: thread-compatible.  Waits: never.
// Source: FIPS 180-4.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace terrace {

class Digest {
 public:
  Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;
  ~Digest();
  // Adds the length (u64, little-endian) and the bytes.
  void add_field(std::string_view bytes);
  // The digest; the object starts anew.
  [[nodiscard]] std::array<std::uint8_t, 32> finish();
  // finish() as 64 lower-case hex digits.
  [[nodiscard]] std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace terrace

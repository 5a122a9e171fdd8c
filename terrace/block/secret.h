// 32 secret bytes in a page of their own: not in core dumps, not in children, not on swap where the
// system lets us, and wiped when they go.
// Threading: thread-compatible.  Owns: one page, locked if the limit allows it.  Waits: never.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>

#include "terrace/base/status.h"

namespace terrace {

inline constexpr std::size_t kSecretBytes = 32;

class Secret {
 public:
  // Zeros. Errors: kExhausted = no memory.
  [[nodiscard]] static Result<Secret> create();
  Secret(Secret&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}
  Secret& operator=(Secret&& other) noexcept {
    std::swap(page_, other.page_);
    return *this;
  }
  ~Secret();
  [[nodiscard]] std::span<std::uint8_t, kSecretBytes> bytes() {
    return std::span<std::uint8_t, kSecretBytes>(page_, kSecretBytes);
  }
  [[nodiscard]] std::span<const std::uint8_t, kSecretBytes> bytes() const {
    return std::span<const std::uint8_t, kSecretBytes>(page_, kSecretBytes);
  }

 private:
  explicit Secret(std::uint8_t* page) : page_(page) {}
  std::uint8_t* page_;
};

// Overwrites in a way that no compiler leaves out.
void wipe(std::span<std::uint8_t> bytes);
// A secret on the stack, for the time of one call.
class BriefSecret {
 public:
  BriefSecret() = default;
  BriefSecret(const BriefSecret&) = delete;
  BriefSecret& operator=(const BriefSecret&) = delete;
  ~BriefSecret() { wipe(bytes_); }
  [[nodiscard]] std::span<std::uint8_t, kSecretBytes> bytes() { return bytes_; }

 private:
  std::array<std::uint8_t, kSecretBytes> bytes_{};
};

}  // namespace terrace

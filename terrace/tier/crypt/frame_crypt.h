// Encryption for one tier: what can be read and what is written, buffers for what is being written,
// and cipher work given to other threads. Without keys it only tells encrypted frames apart.
// Threading: owned by the tier's I/O thread; jobs run in others.  Waits: never.
// Memory: Options::buffers buffers, from create(), with keys only.
// Source: docs/adr/0024-a-key-for-every-frame.md.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "terrace/base/hands.h"
#include "terrace/base/mutex.h"
#include "terrace/base/status.h"
#include "terrace/block/key_ring.h"
#include "terrace/wire/frame_cipher.h"

namespace terrace::tier {

// What a tier is told; the default is no encryption.
struct CryptOptions {
  std::shared_ptr<const KeyRing> ring;  // Null: nothing is encrypted, nothing encrypted is read.
  Hands* hands = nullptr;               // Outlives the tier; null: the I/O thread itself.
  bool accepts_plain = false;           // With keys: reads blocks that are not encrypted, too.
};

class FrameCrypt {
 public:
  struct Options {
    CryptOptions crypt;
    std::array<std::uint8_t, 32> content_digest{};
    std::array<std::uint8_t, 32> layout_digest{};
    std::size_t buffer_bytes = 0;
    std::size_t buffers = 0;
    std::function<void()> wake;  // Thread-safe; called when a job has ended.
  };
  // Errors: kExhausted = no memory.
  [[nodiscard]] static Result<std::unique_ptr<FrameCrypt>> create(Options options);

  // What is written is encrypted.
  [[nodiscard]] bool is_on() const { return keys_.has_value(); }
  [[nodiscard]] const KeyRing::Key& current() const { return keys_->current(); }
  [[nodiscard]] std::string key_ids() const;
  // Whether a block can be read that is said to be under a key with this tag; none = plain.
  [[nodiscard]] bool can_read(std::optional<std::uint16_t> key_tag) const;
  // Of a frame's header. kRefused = locked, and what would open it.
  [[nodiscard]] Status check(const wire::FrameHeader& header) const;

  // A buffer of buffer_bytes, 4 KiB aligned and zeroed once; null when all are in use.
  [[nodiscard]] std::byte* take_buffer();
  void give_buffer(std::byte* buffer);
  [[nodiscard]] std::size_t buffers() const { return options_.buffers; }

  // Encrypts `plain` into `stored`, which has room for `padded` bytes, and completes `header`. What
  // is behind the payload becomes zeros. The result stands in `status` once take_done() says so.
  void post_seal(std::uint64_t token, std::span<const std::byte> plain, std::byte* stored,
                 std::size_t padded, wire::FrameHeader& header, Status& status);
  // Opens a frame of check()ed header in place. `header` afterwards has the plain payload's
  // checksum. Status: kCorrupt.
  void post_open(std::uint64_t token, wire::FrameHeader& header, std::span<std::byte> payload,
                 bool is_urgent, Status& status);
  // Appends the tokens of what has ended.
  void take_done(std::vector<std::uint64_t>& tokens);
  [[nodiscard]] std::size_t under_way() const { return under_way_; }
  // Frames that were whole and that no key opened as what they should be.
  [[nodiscard]] std::uint64_t forged() const { return forged_.load(); }

 private:
  FrameCrypt(Options options, std::optional<NamespaceKeys> keys);
  void post(std::uint64_t token, bool is_urgent, std::function<Status()> work, Status& status);

  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  const Options options_;
  const std::optional<NamespaceKeys> keys_;
  std::unique_ptr<std::byte, Free> memory_;
  std::vector<std::byte*> free_;
  std::size_t under_way_ = 0;
  std::atomic<std::uint64_t> forged_{0};
  Mutex mutex_;
  std::vector<std::uint64_t> done_ TERRACE_GUARDED_BY(mutex_);
};

}  // namespace terrace::tier

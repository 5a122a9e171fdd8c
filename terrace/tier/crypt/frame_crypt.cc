#include "terrace/tier/crypt/frame_crypt.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

namespace terrace::tier {

namespace {

constexpr std::size_t kAlignment = 4096;

Status opened(const KeyRing::Key& key, wire::FrameHeader& header, std::span<std::byte> payload,
              std::atomic<std::uint64_t>& forged) {
  TERRACE_ASSIGN_OR_RETURN(const wire::OpenedFrame frame, wire::open_frame(key, header, payload));
  switch (frame.verdict) {
    case wire::FrameVerdict::kRight:
      header.payload_checksum = frame.checksum;
      return {};
    case wire::FrameVerdict::kDamaged:
      return {Code::kCorrupt, "the encrypted payload is damaged"};
    case wire::FrameVerdict::kForged:
      forged.fetch_add(1);
      return {Code::kCorrupt,
              fmt::format("the frame is whole, and not what key {} sealed for this block",
                          key.id.hex())};
  }
  return {Code::kInternal, "no verdict"};
}

}  // namespace

Result<std::unique_ptr<FrameCrypt>> FrameCrypt::create(Options options) {
  std::optional<NamespaceKeys> keys;
  if (options.crypt.ring != nullptr && !options.crypt.ring->is_empty()) {
    TERRACE_ASSIGN_OR_RETURN(
        keys,
        NamespaceKeys::derive(*options.crypt.ring, options.content_digest, options.layout_digest));
  }
  std::unique_ptr<FrameCrypt> crypt(new FrameCrypt(std::move(options), std::move(keys)));
  const std::size_t bytes = crypt->options_.buffer_bytes;
  if (!crypt->is_on() || bytes == 0) return crypt;
  const std::size_t count = crypt->options_.buffers;
  crypt->memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, count * bytes)));
  if (crypt->memory_ == nullptr) {
    return fail(Code::kExhausted,
                fmt::format("no memory for {} buffers of {} bytes to encrypt in", count, bytes));
  }
  std::fill_n(crypt->memory_.get(), count * bytes, std::byte{0});
  for (std::size_t i = count; i > 0; --i) {
    crypt->free_.push_back(crypt->memory_.get() + (i - 1) * bytes);
  }
  return crypt;
}

FrameCrypt::FrameCrypt(Options options, std::optional<NamespaceKeys> keys)
    : options_(std::move(options)), keys_(std::move(keys)) {}

std::string FrameCrypt::key_ids() const {
  return options_.crypt.ring == nullptr ? std::string() : options_.crypt.ring->ids();
}

bool FrameCrypt::can_read(std::optional<std::uint16_t> key_tag) const {
  if (!key_tag) return !is_on() || options_.crypt.accepts_plain;
  return is_on() && keys_->has_tag(*key_tag);
}

Status FrameCrypt::check(const wire::FrameHeader& header) const {
  if (header.codec == wire::FrameCodec::kRaw) {
    if (can_read(std::nullopt)) return {};
    return {Code::kRefused,
            "the block is not encrypted; encryption.accept_plain serves such blocks"};
  }
  if (is_on() && keys_->find(header.seal.key) != nullptr) return {};
  return {Code::kRefused, fmt::format("the block needs the key {}", header.seal.key.hex())};
}

std::byte* FrameCrypt::take_buffer() {
  if (free_.empty()) return nullptr;
  std::byte* const buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void FrameCrypt::give_buffer(std::byte* buffer) { free_.push_back(buffer); }

void FrameCrypt::post_seal(std::uint64_t token, std::span<const std::byte> plain, std::byte* stored,
                           std::size_t padded, wire::FrameHeader& header, Status& status) {
  post(
      token, false,
      [this, plain, stored, padded, &header] {
        std::fill(stored + plain.size(), stored + padded, std::byte{0});
        return wire::seal_frame(current(), wire::FrameSalt::random(), plain, {stored, plain.size()},
                                header);
      },
      status);
}

void FrameCrypt::post_open(std::uint64_t token, wire::FrameHeader& header,
                           std::span<std::byte> payload, bool is_urgent, Status& status) {
  post(
      token, is_urgent,
      [this, payload, &header] {
        const KeyRing::Key* key = keys_->find(header.seal.key);
        if (key == nullptr) return Status(Code::kRefused, "the key is not there");
        return opened(*key, header, payload, forged_);
      },
      status);
}

void FrameCrypt::post(std::uint64_t token, bool is_urgent, std::function<Status()> work,
                      Status& status) {
  ++under_way_;
  auto job = [this, token, work = std::move(work), &status] {
    try {
      status = work();
    } catch (const std::exception& error) {
      status = {Code::kInternal, error.what()};
    }
    // Woken under the lock: whoever knows by take_done() that all has ended may end the tier, and
    // what is woken with it.
    const MutexLock lock(mutex_);
    done_.push_back(token);
    if (options_.wake) options_.wake();
  };
  if (options_.crypt.hands != nullptr) {
    options_.crypt.hands->post(std::move(job), is_urgent);
  } else {
    job();
  }
}

void FrameCrypt::take_done(std::vector<std::uint64_t>& tokens) {
  if (under_way_ == 0) return;
  const MutexLock lock(mutex_);
  under_way_ -= done_.size();
  tokens.insert(tokens.end(), done_.begin(), done_.end());
  done_.clear();
}

}  // namespace terrace::tier

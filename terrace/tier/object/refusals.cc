#include <fmt/format.h>

#include "terrace/tier/object/refusals_internal.h"

namespace terrace::tier::object {

namespace {
constexpr unsigned kMostFailedReads = 3;
constexpr unsigned kMostFailedPuts = 3;

// Of this pack, as far as it tells: a store that is away is another matter.
bool is_of_put(const Status& status) {
  return status.code() == Code::kIo || status.code() == Code::kCorrupt ||
         status.code() == Code::kDeadline;
}
}  // namespace

void Refusals::note_asked(const Status& status) {
  std::string text;
  if (status.code() == Code::kRefused) {
    text = fmt::format(
        "{}: asking and reading are refused: {}; what lies there is not served: renew the "
        "credentials (object.access_key, object.credentials_file), or let this user read there",
        context_.store->place(), status.message());
  } else if (status.code() == Code::kClosed && !context_.is_stopped) {
    // A thread of it ended, for want of memory.
    text = fmt::format(
        "{}: what asks it here has ended: {}; nothing is read there or written any more: restart "
        "the engine",
        context_.store->place(), status.message());
  } else if (!status.is_ok() && status.code() != Code::kNotFound) {
    return;  // It says nothing about that.
  }
  tell(&Context::refused, std::move(text));
}

void Refusals::note_read(const Status& status) {
  std::string text;
  if (status.code() == Code::kIo) {
    if (++failed_reads_ < kMostFailedReads) return;
    text = fmt::format(
        "{}: packs cannot be read, though it answers: {}; what lies there is not served: look at "
        "the store, and at proxies on the way to it",
        context_.store->place(), status.message());
  } else if (!status.is_ok()) {
    return;
  } else {
    failed_reads_ = 0;
  }
  tell(&Context::unreadable, std::move(text));
}

void Refusals::note_put(const Status& status) {
  std::string full;
  std::string refused;
  if (status.code() == Code::kExhausted) {
    full = fmt::format(
        "{}: it takes no more: {}; nothing new is shared: free space there, or bound what lies "
        "there by object.size or object.max_age",
        context_.store->place(), status.message());
  } else if (status.code() == Code::kRefused) {
    // Who may only read is served, and may be meant to be: no problem of the owner's.
    refused = fmt::format("puts are refused: {}", status.message());
  } else if (is_of_put(status)) {
    if (++failed_puts_ < kMostFailedPuts) return;
    full = fmt::format(
        "{}: packs cannot be put, though it answers: {}; nothing new is shared: look at the "
        "store; smaller packs are object.pack_blocks, of all engines that share it",
        context_.store->place(), status.message());
  } else if (!status.is_ok()) {
    return;
  } else {
    failed_puts_ = 0;
  }
  tell(&Context::full, std::move(full));
  tell(&Context::refused_puts, std::move(refused));
}

void Refusals::tell(std::string Context::* state, std::string text) {
  bool is_new = false;
  {
    const MutexLock lock(context_.mutex);
    std::string& known = context_.*state;
    is_new = known.empty() && !text.empty();
    known = text;
  }
  if (is_new) {
    log_.write(LogLevel::kWarn, fmt::format("event=object_refused place=\"{}\" reason=\"{}\"",
                                            context_.store->place(), text));
  }
}

}  // namespace terrace::tier::object

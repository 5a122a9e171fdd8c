#include <fmt/format.h>

#include "terrace/tier/disk/flights_internal.h"

namespace terrace::tier::disk {

namespace {

std::string_view name_of(Purpose purpose) {
  switch (purpose) {
    case Purpose::kReadFrame:
      return "a read of 0.slots";
    case Purpose::kWriteFrame:
    case Purpose::kZeroFill:
      return "a write of 0.slots";
    case Purpose::kDataSync:
      return "fdatasync of 0.slots";
    case Purpose::kMetaWrite:
      return "a write of slots.meta or extents.meta";
    case Purpose::kMetaSync:
      return "fdatasync of slots.meta or extents.meta";
    case Purpose::kAllocate:
      return "fallocate of 0.slots or slots.meta";
    case Purpose::kAccountWrite:
      return "a write of writes.meta";
    case Purpose::kAccountSync:
      return "fdatasync of writes.meta";
    case Purpose::kLearnedWrite:
      return "a write of learned.meta";
    case Purpose::kLearnedSync:
      return "fdatasync of learned.meta";
    case Purpose::kScrub:
      return "a read of the scrub";
    case Purpose::kCheck:
      return "a read of a check";
    case Purpose::kLoad:
    case Purpose::kSealFrame:
    case Purpose::kOpenFrame:
      break;  // Not of the queue.
  }
  return "a call";
}

Nanoseconds limit_of(Purpose purpose, bool is_direct) {
  const HangKind kind = hang_kind_of(purpose);
  const bool is_long = kind == HangKind::kAllocate || (kind == HangKind::kSync && !is_direct);
  return is_long ? kLongHanging : kHanging;
}

std::size_t index_of(Purpose purpose) { return static_cast<std::size_t>(purpose); }

}  // namespace

std::string_view to_string(HangKind kind) {
  switch (kind) {
    case HangKind::kTransfer:
      return "transfer";
    case HangKind::kSync:
      return "fdatasync";
    case HangKind::kAllocate:
      return "fallocate";
  }
  return "unknown";
}

HangKind hang_kind_of(Purpose purpose) {
  switch (purpose) {
    case Purpose::kDataSync:
    case Purpose::kMetaSync:
    case Purpose::kAccountSync:
    case Purpose::kLearnedSync:
      return HangKind::kSync;
    case Purpose::kAllocate:
      return HangKind::kAllocate;
    case Purpose::kReadFrame:
    case Purpose::kWriteFrame:
    case Purpose::kMetaWrite:
    case Purpose::kZeroFill:
    case Purpose::kLoad:
    case Purpose::kSealFrame:
    case Purpose::kOpenFrame:
    case Purpose::kAccountWrite:
    case Purpose::kLearnedWrite:
    case Purpose::kScrub:
    case Purpose::kCheck:
      return HangKind::kTransfer;
  }
  return HangKind::kTransfer;
}

void Flights::began(Purpose purpose, std::uint32_t volume) {
  Kind& kind = volumes_[volume][index_of(purpose)];
  if (kind.flying++ == 0) kind.mark = clock_.now();
}

void Flights::ended(Purpose purpose, std::uint32_t volume, bool is_answer) {
  Kind& kind = volumes_[volume][index_of(purpose)];
  if (kind.flying == 0) return;
  if (is_answer) kind.mark = clock_.now();
  if (--kind.flying == 0) kind.is_hanging = false;
}

std::optional<Purpose> Flights::hanging(std::uint32_t volume, bool is_direct) {
  std::optional<Purpose> found;
  const Nanoseconds now = clock_.now();
  Kinds& kinds = volumes_[volume];
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    Kind& kind = kinds[i];
    const auto purpose = static_cast<Purpose>(i);
    if (kind.flying > 0 && now - kind.mark > limit_of(purpose, is_direct)) kind.is_hanging = true;
    if (kind.is_hanging && !found) found = purpose;
  }
  return found;
}

std::string text_of_hang(Purpose purpose, bool is_direct) {
  return fmt::format("{} has not come back for {} s", name_of(purpose),
                     limit_of(purpose, is_direct) / seconds(1));
}

}  // namespace terrace::tier::disk

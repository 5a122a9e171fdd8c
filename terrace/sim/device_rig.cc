#include "terrace/sim/device_rig.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "terrace/base/check.h"
#include "terrace/base/file.h"
#include "terrace/wire/frame.h"

namespace terrace::sim {

using transfer::IoOp;
using transfer::Transfer;

namespace {
constexpr std::size_t kSectorBytes = 512;
constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kKeptPlaces = 256;
// Of slots.meta, as docs/formats/disk.md has it.
constexpr std::uint64_t kRecordsOffset = 8192;
constexpr std::size_t kRecordBytes = 64;
constexpr std::size_t kRecordGroup = 52;
constexpr std::size_t kMostUnsynced = 4096;

bool moves_bytes(const Transfer& transfer) {
  return transfer.op == IoOp::kRead || transfer.op == IoOp::kWrite;
}

// Frames, and nothing else, move as a header page and a payload.
bool is_frame(const Transfer& transfer) { return transfer.piece_count == 2; }

std::vector<std::byte> joined(const Transfer& transfer) {
  std::vector<std::byte> bytes;
  bytes.reserve(transfer.bytes());
  for (std::size_t i = 0; i < transfer.piece_count; ++i) {
    const transfer::MemoryPiece& piece = transfer.pieces[i];
    bytes.insert(bytes.end(), piece.data, piece.data + piece.bytes);
  }
  return bytes;
}

std::array<iovec, transfer::kMaxPieces> vectors_of(const Transfer& transfer) {
  std::array<iovec, transfer::kMaxPieces> vectors{};
  for (std::size_t i = 0; i < transfer.piece_count; ++i) {
    vectors[i] = {transfer.pieces[i].data, transfer.pieces[i].bytes};
  }
  return vectors;
}

// What lies there; zeros behind the end.
std::vector<std::byte> content_at(int file, std::uint64_t offset, std::size_t bytes) {
  std::vector<std::byte> content(bytes);
  (void)::pread(file, content.data(), bytes, static_cast<off_t>(offset));
  return content;
}

Result<wire::FrameHeader> frame_at(int file, std::uint64_t offset) {
  const std::vector<std::byte> page = content_at(file, offset, kPageBytes);
  return wire::decode_frame(std::span<const std::byte, kPageBytes>(page.data(), kPageBytes));
}

void write_all(int file, std::span<const std::byte> bytes, std::uint64_t offset) {
  const ssize_t done = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
  TERRACE_CHECK(done == static_cast<ssize_t>(bytes.size()));  // A file in memory takes all.
}

using Place = std::pair<std::string, std::uint64_t>;
void note(std::deque<Place>& places, Place place) {
  places.push_back(std::move(place));
  if (places.size() > kKeptPlaces) places.pop_front();
}

void flip(Rng& rng, std::span<std::byte> bytes) {
  bytes[rng.below(bytes.size())] ^= static_cast<std::byte>(1U << rng.below(8));
}
}  // namespace

class DeviceBackend final : public transfer::Backend {
 public:
  DeviceBackend(Device& device, unsigned depth) : Backend(depth), device_(device) {}
  [[nodiscard]] std::string_view name() const override { return "simulated"; }
  void wake() override {}

 protected:
  Status start(const Transfer& transfer) override {
    if (device_.has_power_) {
      device_.start(transfer, path_of(transfer.file));
    } else {
      refused_.push_back(transfer);
    }
    return {};
  }
  void collect(std::vector<Finished>& finished) override {
    for (Device::Flights& flights = device_.flights_; !flights.empty();) {
      const auto first = flights.begin();
      if (device_.has_power_ && first->first.first > device_.clock_->now()) break;
      const Device::Flight flight = first->second;
      flights.erase(first);
      if (!device_.has_power_) {
        refused_.push_back(flight.transfer);
        continue;
      }
      const Device::Outcome outcome = device_.finish(flight);
      finished.push_back({flight.transfer, status_of(outcome, flight.transfer)});
    }
    for (const Transfer& transfer : refused_) {
      finished.push_back({transfer, io_error(EIO, transfer)});
    }
    refused_.clear();
  }
  void pause(Nanoseconds limit) override {
    const Nanoseconds now = device_.clock_->now();
    if (!refused_.empty()) return;
    const Nanoseconds due = device_.has_power_ ? device_.next_due() : kNoDeadline;
    const Nanoseconds until = std::min(due, now + limit);
    if (until > now) device_.clock_->advance(until - now);
  }

 private:
  Status status_of(const Device::Outcome& outcome, const Transfer& transfer) const {
    if (outcome.is_short) return end_of_file(transfer);
    return outcome.error == 0 ? Status() : io_error(outcome.error, transfer);
  }
  Device& device_;
  std::vector<Transfer> refused_;
};

std::unique_ptr<transfer::Backend> Device::plug_in(testing::FakeClock& clock, unsigned depth) {
  TERRACE_CHECK(flights_.empty());
  clock_ = &clock;
  channels_.assign(model_.channels, clock.now());
  return std::make_unique<DeviceBackend>(*this, depth);
}

bool Device::chance(unsigned of_ten_thousand) {
  return of_ten_thousand > 0 && rng_.below(10'000) < of_ten_thousand;
}

Nanoseconds Device::serve(const Transfer& transfer) {
  const Nanoseconds now = clock_->now();
  Nanoseconds time = model_.sync;
  Nanoseconds begin = now;
  if (moves_bytes(transfer)) {
    const auto pages = static_cast<std::int64_t>((transfer.bytes() + kPageBytes - 1) / kPageBytes);
    time = model_.latency + model_.per_page * pages;
  } else if (transfer.op == IoOp::kSync) {
    for (const auto& [when, flight] : flights_) {
      if (flight.transfer.op == IoOp::kWrite) begin = std::max(begin, when.first);
    }
  }
  if (model_.jitter_percent > 0) {
    const auto most = static_cast<std::uint64_t>(time.value()) * model_.jitter_percent / 100;
    time += Nanoseconds(static_cast<std::int64_t>(rng_.below(most + 1)));
  }
  if (!moves_bytes(transfer)) return begin + time;
  const auto channel = std::ranges::min_element(channels_);
  *channel = std::max(*channel, now) + time;
  return *channel;
}

void Device::start(const Transfer& transfer, const std::string& path) {
  const std::uint64_t mark = witness_ == nullptr ? 0 : witness_->begins(transfer);
  Nanoseconds due = serve(transfer);
  if (chance(faults_.hanging)) {
    ++injected_;
    const auto most = static_cast<std::uint64_t>(faults_.longest_hang.value());
    due += Nanoseconds(static_cast<std::int64_t>(rng_.below(most)));
  }
  flights_.emplace(std::pair(due, ++last_flight_),
                   Flight{transfer, &path, choose(transfer), ++events_, mark});
}

Device::Fault Device::choose(const Transfer& transfer) {
  struct Kind {
    Fault fault;
    unsigned rate;
  };
  std::array<Kind, 4> kinds{};
  switch (transfer.op) {
    case IoOp::kRead:
      kinds = {{{Fault::kError, faults_.read_error},
                {Fault::kFlip, faults_.flipped_read},
                {Fault::kCut, faults_.short_read},
                {Fault::kMisplace, faults_.misplaced_read}}};
      break;
    case IoOp::kWrite:
      kinds = {{{Fault::kError, faults_.write_error},
                {Fault::kNoSpace, faults_.no_space},
                {Fault::kFlip, is_frame(transfer) ? faults_.flipped_write : 0},
                {Fault::kCut, is_frame(transfer) ? faults_.torn_write : 0}}};
      break;
    case IoOp::kSync:
      kinds[0] = {Fault::kError, faults_.sync_error};
      break;
    case IoOp::kAllocate:
      kinds[0] = {Fault::kNoSpace, faults_.no_space};
      break;
  }
  for (const Kind& kind : kinds) {
    if (!chance(kind.rate)) continue;
    ++injected_;
    return kind.fault;
  }
  return Fault::kNone;
}

Device::Outcome Device::finish(const Flight& flight) {
  ++events_;
  const Transfer& transfer = flight.transfer;
  if (witness_ != nullptr) witness_->moves(transfer, flight.mark);
  switch (transfer.op) {
    case IoOp::kRead:
      return read(flight);
    case IoOp::kWrite:
      return write(flight);
    case IoOp::kSync:
      sync(*flight.path, flight.begun, flight.fault == Fault::kError);
      return {.error = flight.fault == Fault::kError ? EIO : 0};
    case IoOp::kAllocate:
      break;
  }
  if (flight.fault == Fault::kNoSpace) return {.error = ENOSPC};
  struct stat facts{};
  const auto end = static_cast<off_t>(transfer.offset + transfer.length);
  TERRACE_CHECK(::fstat(transfer.file, &facts) == 0);
  if (facts.st_size < end && ::ftruncate(transfer.file, end) != 0) return {.error = errno};
  return {};
}

// Half of the time one of the same key and rank, where there is one: of another time, maybe of
// before a reset, and so the likeliest to be taken for the wanted one.
std::uint64_t Device::other_frame(const Flight& flight) {
  const Transfer& transfer = flight.transfer;
  std::vector<std::uint64_t> all;
  for (const Place& place : frames_) {
    if (place.first == *flight.path && place.second != transfer.offset) all.push_back(place.second);
  }
  if (all.empty()) return transfer.offset;
  if (const auto wanted = frame_at(transfer.file, transfer.offset); wanted && rng_.chance(50)) {
    std::vector<std::uint64_t> same;
    for (const std::uint64_t offset : all) {
      const auto other = frame_at(transfer.file, offset);
      const bool is_same = other && other->hash == wanted->hash && other->group == wanted->group &&
                           other->rank == wanted->rank;
      if (is_same) same.push_back(offset);
    }
    if (!same.empty()) return same[rng_.below(same.size())];
  }
  return all[rng_.below(all.size())];
}

Device::Outcome Device::read(const Flight& flight) {
  const Transfer& transfer = flight.transfer;
  if (flight.fault != Fault::kNone) tell_harm(transfer);
  if (flight.fault == Fault::kError) return {.error = EIO};
  std::uint64_t offset = transfer.offset;
  if (flight.fault == Fault::kMisplace && is_frame(transfer) && !frames_.empty()) {
    offset = other_frame(flight);
  }
  auto vectors = vectors_of(transfer);
  std::size_t count = transfer.piece_count;
  std::size_t wanted = transfer.bytes();
  if (flight.fault == Fault::kCut) {
    wanted = kSectorBytes * rng_.below(std::max<std::size_t>(wanted / kSectorBytes, 1));
    std::size_t left = wanted;
    for (iovec& vector : vectors) {
      vector.iov_len = std::min(vector.iov_len, left);
      left -= vector.iov_len;
    }
  }
  const ssize_t got =
      ::preadv(transfer.file, vectors.data(), static_cast<int>(count), static_cast<off_t>(offset));
  if (got < 0) return {.error = errno};
  if (static_cast<std::size_t>(got) < wanted) return {.is_short = true};
  if (flight.fault == Fault::kFlip) {
    const transfer::MemoryPiece& piece = transfer.pieces[rng_.below(count)];
    flip(rng_, {piece.data, piece.bytes});
  }
  return {};
}

Device::Outcome Device::write(const Flight& flight) {
  const Transfer& transfer = flight.transfer;
  if (drops_writes_) return {};
  if (is_frame(transfer)) {
    note(frames_, {*flight.path, transfer.offset});
  } else if (transfer.offset >= kRecordsOffset && flight.path->ends_with("/slots.meta")) {
    note(records_, {*flight.path, transfer.offset});
  }
  if (flight.fault == Fault::kNone && !keeps_unsynced_) {
    const auto vectors = vectors_of(transfer);
    const ssize_t done =
        ::pwritev(transfer.file, vectors.data(), static_cast<int>(transfer.piece_count),
                  static_cast<off_t>(transfer.offset));
    return {.error = done < 0 ? errno : 0};
  }
  std::vector<std::byte> bytes = joined(transfer);
  const std::size_t sectors = bytes.size() / kSectorBytes;
  switch (flight.fault) {
    case Fault::kNone:
    case Fault::kMisplace:
      land(flight, bytes, events_);
      return {};
    case Fault::kFlip:
      tell_harm(transfer);
      flip(rng_, bytes);
      land(flight, bytes, events_);
      return {};
    case Fault::kCut:
      tell_harm(transfer);
      bytes.resize(kSectorBytes * rng_.below(sectors + 1));
      land(flight, bytes, events_);
      return {};
    case Fault::kError:
      bytes.resize(kSectorBytes * rng_.below(sectors + 1));
      land(flight, bytes, events_);
      return {.error = EIO};
    case Fault::kNoSpace:
      break;
  }
  return {.error = ENOSPC};
}

void Device::land(const Flight& flight, const std::vector<std::byte>& bytes,
                  std::uint64_t finished) {
  if (bytes.empty()) return;
  const Transfer& transfer = flight.transfer;
  if (keeps_unsynced_) {
    unsynced_.push_back({*flight.path, transfer.offset,
                         content_at(transfer.file, transfer.offset, bytes.size()), bytes, finished,
                         false, false});
    // A write whose syncs all failed is taken as landed in the end.
    if (unsynced_.size() > kMostUnsynced) unsynced_.pop_front();
  }
  write_all(transfer.file, bytes, transfer.offset);
}

void Device::see(const testing::FileChange& change) {
  using Kind = testing::FileChange::Kind;
  if (!keeps_unsynced_) return;
  if (change.kind == Kind::kWrite) {
    const UniqueFd file(::open(change.path.c_str(), O_RDONLY | O_CLOEXEC));
    unsynced_.push_back({change.path,
                         change.offset,
                         content_at(file.get(), change.offset, change.bytes.size()),
                         {change.bytes.begin(), change.bytes.end()},
                         ++events_,
                         false,
                         false});
  } else if (change.kind == Kind::kSync) {
    sync(change.path, ++events_, false);
  } else if (change.kind == Kind::kTruncate) {
    forget_from(change.path, change.length);
  } else if (change.kind == Kind::kRename || change.kind == Kind::kRemove) {
    forget_from(change.path, 0);
    forget_from(change.source, 0);
  }
}

// What of it has landed is there no more.
void Device::forget_from(const std::string& path, std::uint64_t length) {
  std::erase_if(unsynced_, [&](const Unsynced& write) {
    return write.path == path && write.offset + write.after.size() > length;
  });
}

void Device::sync(const std::string& path, std::uint64_t begun, bool is_failed) {
  for (Unsynced& write : unsynced_) {
    if (write.finished >= begun || write.path != path) continue;
    write.is_doomed = write.is_doomed || is_failed;
    write.is_durable = write.is_durable || !write.is_doomed;
  }
  while (!unsynced_.empty() && unsynced_.front().is_durable) unsynced_.pop_front();
}

void Device::tell_harm(const Transfer& transfer) {
  if (witness_ == nullptr || !is_frame(transfer)) return;
  std::array<std::byte, kPageBytes> page{};
  if (transfer.op == IoOp::kWrite) {
    std::memcpy(page.data(), transfer.pieces[0].data, page.size());
  } else if (::pread(transfer.file, page.data(), page.size(), static_cast<off_t>(transfer.offset)) <
             0) {
    return;
  }
  if (const auto header = wire::decode_frame(page)) {
    witness_->harms(header->group, header->hash);
  }
}

void Device::cut_power() {
  has_power_ = false;
  for (const auto& [when, flight] : flights_) {
    if (flight.transfer.op == IoOp::kWrite) land(flight, joined(flight.transfer), 0);
  }
}

void Device::settle_power(unsigned percent) {
  std::map<std::string, UniqueFd> files;
  for (const Unsynced& write : unsynced_) {
    if (!files.contains(write.path)) {
      files[write.path] = UniqueFd(::open(write.path.c_str(), O_RDWR | O_CLOEXEC));
    }
  }
  for (auto it = unsynced_.rbegin(); it != unsynced_.rend(); ++it) {
    if (files[it->path].get() >= 0) write_all(files[it->path].get(), it->before, it->offset);
  }
  for (const Unsynced& write : unsynced_) {
    const int file = files[write.path].get();
    for (std::size_t at = 0; file >= 0 && at < write.after.size();) {
      // Cut where the medium's sectors end, not where the write's do.
      const std::size_t end = kSectorBytes - (write.offset + at) % kSectorBytes;
      const std::size_t bytes = std::min(end, write.after.size() - at);
      if (write.is_durable || rng_.chance(percent)) {
        write_all(file, std::span(write.after).subspan(at, bytes), write.offset + at);
      }
      at += bytes;
    }
  }
  unsynced_.clear();
  has_power_ = true;
}

void Device::rot_frame() {
  if (frames_.empty()) return;
  // Header or payload; the rest of their pages holds nothing.
  const std::uint64_t within = rng_.chance(50) ? rng_.below(160) : kPageBytes + rng_.below(192);
  rot(frames_[rng_.below(frames_.size())], within, false);
}

void Device::rot_record() {
  if (records_.empty()) return;
  rot(records_[rng_.below(records_.size())], rng_.below(kRecordBytes), true);
}

void Device::rot(const Place& place, std::uint64_t within, bool is_record) {
  const UniqueFd file(::open(place.first.c_str(), O_RDWR | O_CLOEXEC));
  if (file.get() < 0) return;
  std::vector<std::byte> bytes =
      content_at(file.get(), place.second, is_record ? kRecordBytes : 2 * kPageBytes);
  if (is_record) {
    SequenceHash hash;
    std::uint16_t group = 0;
    std::memcpy(&hash.high, bytes.data(), 8);
    std::memcpy(&hash.low, bytes.data() + 8, 8);
    std::memcpy(&group, bytes.data() + kRecordGroup, 2);
    witness_->harms(GroupId(group), hash);
  } else {
    const std::span<const std::byte, kPageBytes> page(bytes.data(), kPageBytes);
    const auto header = wire::decode_frame(page);
    if (header) witness_->harms(header->group, header->hash);
  }
  std::byte byte = bytes[within] ^ static_cast<std::byte>(1U << rng_.below(8));
  write_all(file.get(), {&byte, 1}, place.second + within);
  ++injected_;
}

}  // namespace terrace::sim

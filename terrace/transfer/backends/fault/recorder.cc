#include "terrace/transfer/backends/fault/recorder.h"

#include <algorithm>
#include <map>

namespace terrace::transfer {

namespace {
constexpr std::size_t kSectorBytes = 512;

bool is_journaled(Recorder::Kind kind) { return kind > Recorder::Kind::kSync; }

Recorder::Kind kind_of(IoOp op) {
  switch (op) {
    case IoOp::kRead:
    case IoOp::kWrite:
      return Recorder::Kind::kWrite;
    case IoOp::kSync:
      return Recorder::Kind::kSync;
    case IoOp::kAllocate:
      return Recorder::Kind::kAllocate;
  }
  return Recorder::Kind::kWrite;
}

void move_below(std::string& path, const std::string& from, const std::string& to) {
  if (path.starts_with(from)) path = to + path.substr(from.size());
}
}  // namespace

// `kind`: the change's own, or kAllocate for the length alone that a write gives its file.
bool Recorder::is_durable(const Event& change, Kind kind, std::size_t moment) const {
  if (!trusts_syncs_ || change.finished == kNever) return false;
  const bool is_name = is_journaled(kind) && kind != Kind::kTruncate;
  const std::string synced = is_name ? change.path.substr(0, change.path.rfind('/')) : change.path;
  // Events stand in the order of their beginning. What a failed sync did not bring to the medium
  // the kernel believes to be there, or has thrown away: the next sync is of other writes.
  for (const Event& sync : events_) {
    if (sync.kind != Kind::kSync || sync.path != synced || sync.begun < change.finished) continue;
    if (sync.finished <= moment) return true;
    // Names and lengths a journal keeps: it tries again, or the file system ends.
    if (sync.failed <= moment && kind == Kind::kWrite) return false;
  }
  return false;
}

std::size_t Recorder::journaled(std::size_t moment, Rng& rng, unsigned percent) const {
  std::size_t count = 0;
  std::size_t durable = 0;
  std::vector<bool> chances;  // Of those behind the last durable one.
  for (const Event& change : events_) {
    if (!is_journaled(change.kind) || change.begun > moment) continue;
    ++count;
    chances.push_back(rng.chance(percent));
    if (is_durable(change, change.kind, moment)) durable = count;
  }
  while (durable < count && chances[durable]) ++durable;
  return durable;
}

std::vector<Recorder::Landed> Recorder::survivors(std::size_t moment, Rng& rng,
                                                  unsigned percent) const {
  std::vector<Landed> landed;
  std::size_t left = journaled(moment, rng, percent);
  for (const Event& write : events_) {
    if (write.kind == Kind::kSync || write.begun > moment) continue;
    if (is_journaled(write.kind)) {
      if (left == 0) continue;
      --left;
      landed.push_back({write.kind, write.path, 0, {}, write.file_bytes, write.source});
      continue;
    }
    if (write.kind == Kind::kAllocate) {
      if (is_durable(write, write.kind, moment) || rng.chance(percent)) {
        landed.push_back({write.kind, write.path, write.offset, {}, write.file_bytes, {}});
      }
      continue;
    }
    if (is_durable(write, write.kind, moment)) {
      landed.push_back({write.kind, write.path, write.offset, write.bytes, 0, {}});
      continue;
    }
    if (is_durable(write, Kind::kAllocate, moment)) {
      landed.push_back({Kind::kAllocate, write.path, 0, {}, write.offset + write.bytes.size(), {}});
    }
    for (std::size_t at = 0; at < write.bytes.size();) {
      // Cut where the medium's sectors end, not where the write's do.
      const std::size_t sector_end = kSectorBytes - (write.offset + at) % kSectorBytes;
      const std::size_t bytes = std::min(sector_end, write.bytes.size() - at);
      if (rng.chance(percent)) {
        landed.push_back({write.kind,
                          write.path,
                          write.offset + at,
                          std::span(write.bytes).subspan(at, bytes),
                          0,
                          {}});
      }
      at += bytes;
    }
  }
  return landed;
}

bool Recorder::is_untold(std::size_t moment, std::string_view file) const {
  struct Word {
    std::size_t failed = 0;
    std::size_t told = 0;
  };
  std::map<std::string, Word> words;  // By path: each of several directories has such a file.
  for (const Event& event : events_) {
    if (!event.path.ends_with(file)) continue;
    Word& word = words[event.path];
    if (event.kind == Kind::kSync && event.failed <= moment) {
      word.failed = std::max(word.failed, event.failed);
    }
    if (event.kind == Kind::kWrite && event.finished <= moment) {
      word.told = std::max(word.told, event.begun);
    }
  }
  return std::ranges::any_of(words,
                             [](const auto& one) { return one.second.failed > one.second.told; });
}

void Recorder::note(const Landed& change) {
  Event event;
  event.kind = change.kind;
  event.path = change.path;
  event.source = change.source;
  event.offset = change.offset;
  event.file_bytes = change.file_bytes;
  event.bytes.assign(change.bytes.begin(), change.bytes.end());
  event.begun = ++now_;
  event.finished = now_;
  events_.push_back(std::move(event));
}

void Recorder::go_on_after_kill(std::size_t moment, const std::string& from,
                                const std::string& to) {
  std::erase_if(events_, [&](const Event& event) { return event.begun > moment; });
  for (Event& event : events_) {
    move_below(event.path, from, to);
    move_below(event.source, from, to);
    // A write that failed may have landed, as the next owner finds it: that is in the system's
    // hands, too.
    const bool is_sync = event.kind == Kind::kSync;
    const bool is_over = event.finished <= moment || (is_sync && event.failed <= moment);
    if (is_over) continue;
    // A sync that nobody waits for any more promises nothing.
    event.failed = kNever;
    event.finished = is_sync ? kNever : moment;
  }
  now_ = moment;
}

void RecordingBackend::name_file(int file, const std::string& path) {
  Backend::name_file(file, path);
  inner_->name_file(file, path);
}

Status RecordingBackend::start(const Transfer& transfer) {
  Transfer inner = transfer;
  inner.token = flights_.size();
  Flight flight{transfer, Recorder::kNever};
  if (transfer.op != IoOp::kRead) {
    flight.event = recorder_.events_.size();
    Recorder::Event event;
    event.kind = kind_of(transfer.op);
    event.path = path_of(transfer.file);
    event.offset = transfer.offset;
    if (transfer.op == IoOp::kAllocate) event.file_bytes = transfer.offset + transfer.length;
    event.begun = ++recorder_.now_;
    for (std::size_t i = 0; i < transfer.piece_count; ++i) {
      const MemoryPiece& piece = transfer.pieces[i];
      event.bytes.insert(event.bytes.end(), piece.data, piece.data + piece.bytes);
    }
    recorder_.events_.push_back(std::move(event));
  }
  flights_.push_back(flight);
  return inner_->submit(inner);
}

void RecordingBackend::collect(std::vector<Finished>& finished) {
  scratch_.clear();
  inner_->poll(scratch_);
  for (Completion& completion : scratch_) {
    const Flight& flight = flights_[completion.token];
    if (flight.event != Recorder::kNever) {
      Recorder::Event& event = recorder_.events_[flight.event];
      (completion.status.is_ok() ? event.finished : event.failed) = ++recorder_.now_;
    }
    finished.push_back({flight.transfer, std::move(completion.status)});
  }
}

}  // namespace terrace::transfer

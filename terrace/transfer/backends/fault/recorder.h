// Records every write, sync and allocation that passes, so that a test can ask what would be on the
// medium had the machine stopped at any moment. Crash model: a write that had completed before a
// sync of its file was begun is on the medium once that sync has completed; if that sync failed, no
// later one makes up for it. Of every other write begun before the crash any set of 512-byte
// sectors may have landed, each whole or not at all, in any order; so for the length that an
// allocation or a write gives its file, which any later sync makes durable. Names and lengths that
// are changed beside the backend, see note(), land in their order, as a journal keeps them: at
// least up to the last one whose directory, or for a length whose file, was synced after it.
// Threading: as Backend. Memory: all bytes written.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/transfer/backend.h"

namespace terrace::transfer {

class Recorder {
 public:
  enum class Kind : std::uint8_t {
    kWrite,
    kAllocate,  // The file is at least `file_bytes` long.
    kSync,      // Of a file or directory; never among what landed.
    // The rest in the order of a journal.
    kCreate,
    kDirectory,
    kTruncate,  // To `file_bytes`.
    kRename,    // Of `source`.
    kRemove,
    kRemoveDirectory
  };
  struct Landed {
    Kind kind = Kind::kWrite;
    std::string path{};
    std::uint64_t offset = 0;
    std::span<const std::byte> bytes{};
    std::uint64_t file_bytes = 0;
    std::string source{};
  };
  // A call that was done beside the backend, in no time.
  void note(const Landed& change);
  // Moments are numbers of events (begun or finished); now() is the latest.
  [[nodiscard]] std::size_t now() const { return now_; }
  // Syncs that are not to be trusted: the test that uses this must fail.
  void distrust_syncs() { trusts_syncs_ = false; }
  // What is on the medium after a crash just after `moment`, in the order of writing. Of the bytes
  // in doubt `percent` land.
  [[nodiscard]] std::vector<Landed> survivors(std::size_t moment, Rng& rng, unsigned percent) const;
  // At `moment` a sync of a file whose path ends in `file` had failed, and no write into it that
  // was begun later had ended: its owner could not yet leave word of it.
  [[nodiscard]] bool is_untold(std::size_t moment, std::string_view file) const;
  // The process was killed at `moment`, and the machine goes on: what had not begun by then never
  // does, everything else is in the system's hands, as durable as it was. Its files lie below `to`
  // from now on, and not below `from`.
  void go_on_after_kill(std::size_t moment, const std::string& from, const std::string& to);

 private:
  friend class RecordingBackend;
  static constexpr std::size_t kNever = SIZE_MAX;
  struct Event {
    Kind kind = Kind::kWrite;
    std::string path;
    std::string source;
    std::uint64_t offset = 0;
    std::uint64_t file_bytes = 0;
    std::vector<std::byte> bytes;
    std::size_t begun = 0;
    std::size_t finished = kNever;  // Successfully.
    std::size_t failed = kNever;
  };
  [[nodiscard]] bool is_durable(const Event& change, Kind kind, std::size_t moment) const;
  // How many of the changes in a journal's order have landed.
  [[nodiscard]] std::size_t journaled(std::size_t moment, Rng& rng, unsigned percent) const;

  std::size_t now_ = 0;
  bool trusts_syncs_ = true;
  std::vector<Event> events_;
};

class RecordingBackend final : public Backend {
 public:
  RecordingBackend(std::unique_ptr<Backend> inner, Recorder& recorder)
      : Backend(inner->depth()), inner_(std::move(inner)), recorder_(recorder) {}

  [[nodiscard]] std::string_view name() const override { return inner_->name(); }
  [[nodiscard]] std::size_t most_pieces() const override { return inner_->most_pieces(); }
  [[nodiscard]] std::uint64_t joined_bytes() const override { return inner_->joined_bytes(); }
  void name_file(int file, const std::string& path) override;
  void wake() override { inner_->wake(); }

 protected:
  Status start(const Transfer& transfer) override;
  void collect(std::vector<Finished>& finished) override;
  void pause(Nanoseconds limit) override { inner_->wait(limit); }

 private:
  struct Flight {
    Transfer transfer;
    std::size_t event = 0;  // Index in the recorder; kNever for reads.
  };
  std::unique_ptr<Backend> inner_;
  Recorder& recorder_;
  std::vector<Flight> flights_;
  std::vector<Completion> scratch_;
};

}  // namespace terrace::transfer

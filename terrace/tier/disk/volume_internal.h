// One path's share of the disk tier: an owner directory with its slot file, extent table and the
// slots.meta of the open namespace. Everything here happens at start, with plain blocking calls;
// once the tier serves, all I/O goes through the backend and only the tables in memory are asked
// here. Threading: thread-compatible; the tier's I/O thread owns it after open().  Owns: lock,
// descriptors. Waits: file I/O in open() and fit().  Source: docs/formats/disk.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/base/log.h"
#include "terrace/block/fingerprint.h"
#include "terrace/tier/disk/extent_table_internal.h"
#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/tier/disk/looker_internal.h"
#include "terrace/tier/disk/owner_directory_internal.h"

namespace terrace::tier::disk {

enum class RunState : std::uint8_t {
  kFree,      // Nobody's.
  kForeign,   // Another namespace's blocks lie in it: ours to take when space is short.
  kClaiming,  // Being entered in extents.meta as ours.
  kOurs,
};

// Of a new epoch; see MetaHeader.
[[nodiscard]] std::uint64_t draw_era();

class Volume {
 public:
  struct Options {
    const Layout* layout = nullptr;
    const Fingerprint* fingerprint = nullptr;
    std::uint64_t share_bytes = 0;  // For the extent size of a new volume.
    bool is_direct = true;
    bool is_direct_by_fcntl = false;
    std::int64_t now_seconds = 0;
  };
  // Initialises an empty directory; else keeps what is there. Enters our namespace.
  // Errors: kIo, kCorrupt, with the path and the way out.
  static Result<std::unique_ptr<Volume>> open(OwnerDirectory owner, const Options& options,
                                              LogSink& log);

  // Before fit(): what the shares are divided by. `neighbours`: volumes on its device, itself
  // included, among which what is free there is divided.
  [[nodiscard]] VolumeShare share(std::uint64_t neighbours);
  // The figures behind it, for people.
  [[nodiscard]] const std::string& room_text() const { return room_text_; }
  [[nodiscard]] std::uint64_t device() const;
  // Takes `bytes` of the medium: drops extents beyond it, plans the runs, opens slots.meta. What is
  // older than `generation` of the namespace counts no more, durably. What a killed owner left in
  // the system's hands is made durable before anything is built on it.
  // Errors: kInvalid when not one block fits.
  [[nodiscard]] Status fit(std::uint64_t bytes, std::uint64_t generation);

  [[nodiscard]] const RunGeometry& geometry() const { return geometry_; }
  [[nodiscard]] std::uint32_t slots() const { return geometry_.run_slots * run_count(); }
  [[nodiscard]] std::uint32_t run_count() const { return static_cast<std::uint32_t>(runs_.size()); }
  [[nodiscard]] std::uint32_t run_of(std::uint32_t slot) const {
    return slot / geometry_.run_slots;
  }
  [[nodiscard]] RunState run_state(std::uint32_t run) const { return runs_[run].state; }
  [[nodiscard]] std::uint64_t run_stamp(std::uint32_t run) const { return runs_[run].stamp; }
  // When the namespaces in a foreign run were used last; the run may be taken in that order. One
  // without blocks, as a reset leaves it, counts as never used.
  [[nodiscard]] std::int64_t run_used_seconds(std::uint32_t run) const;
  void set_run(std::uint32_t run, RunState state, std::uint64_t stamp);
  // The records that make `run` ours, as they go to extents.meta at claim_offset().
  void encode_claim(std::uint32_t run, std::uint64_t stamp, std::vector<std::byte>& target) const;
  [[nodiscard]] std::uint64_t claim_offset(std::uint32_t run) const {
    return ExtentTable::offset(run * geometry_.run_extents);
  }

  [[nodiscard]] std::uint64_t record_offset(std::size_t group, std::uint32_t slot) const {
    return kRecordsOffset +
           (static_cast<std::uint64_t>(slot) * geometry_.frame_bytes.size() + group) *
               kSlotRecordBytes;
  }
  [[nodiscard]] MetaHeader meta_header() const { return meta_; }
  // Of the frames that this process reads and writes: that of the header as it was opened.
  [[nodiscard]] std::uint64_t era() const { return era_; }
  void set_meta_header(const MetaHeader& header) { meta_ = header; }
  [[nodiscard]] std::uint32_t name_space() const { return name_space_; }
  [[nodiscard]] std::uint64_t highest_stamp() const { return table_.highest_stamp(); }
  [[nodiscard]] std::uint64_t damaged_extents() const { return table_.damaged(); }
  [[nodiscard]] std::uint64_t damaged_texts() const { return damaged_texts_; }

  [[nodiscard]] const std::string& directory() const { return owner_.directory; }
  [[nodiscard]] int data_file() const { return data_.get(); }
  [[nodiscard]] int meta_file() const { return meta_file_.get(); }
  [[nodiscard]] int extents_file() const { return extents_file_.get(); }
  [[nodiscard]] std::string data_path() const { return owner_.directory + "/0.slots"; }
  [[nodiscard]] std::string meta_path() const;
  [[nodiscard]] std::string extents_path() const { return owner_.directory + "/extents.meta"; }
  [[nodiscard]] std::uint64_t extent_bytes() const { return table_.extent_bytes(); }
  [[nodiscard]] std::uint64_t capacity_bytes() const { return capacity_ * table_.extent_bytes(); }
  // The slot file has blocks on the medium up to here.
  [[nodiscard]] std::uint64_t allocated_bytes() const { return allocated_bytes_; }
  void set_allocated(std::uint64_t bytes) { allocated_bytes_ = bytes; }
  [[nodiscard]] bool is_allocated(std::uint32_t run) const {
    return (run + 1) * geometry_.run_bytes() <= allocated_bytes_;
  }
  // slots.meta as a whole, and up to where it has blocks on the medium.
  [[nodiscard]] std::uint64_t meta_bytes() const;
  [[nodiscard]] std::uint64_t reserved_meta_bytes() const { return reserved_meta_bytes_; }
  void set_reserved_meta(std::uint64_t bytes) { reserved_meta_bytes_ = bytes; }
  // Where the records of `run` end in slots.meta.
  [[nodiscard]] std::uint64_t records_end(std::uint32_t run) const {
    return record_offset(0, (run + 1) * geometry_.run_slots);
  }
  // Begin and end of the first piece of slots.meta from `offset` on, of at most `most` bytes, in
  // which no record counts: runs of ours are left out. Empty, at the file's end, when there is
  // none.
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> next_meta_gap(std::uint64_t offset,
                                                                      std::uint64_t most) const;
  // Frames and records of the run have blocks on the medium: a full one cannot stop a block there.
  [[nodiscard]] bool has_room(std::uint32_t run) const {
    return is_allocated(run) && records_end(run) <= reserved_meta_bytes_;
  }
  // How many of the first slots lie in such runs.
  [[nodiscard]] std::uint32_t slots_with_room() const;
  [[nodiscard]] bool is_direct() const { return is_direct_; }
  // For its Looker. Errors: kExhausted, kIo = no more descriptors.
  [[nodiscard]] Result<LookedAt> looked_at() const;

 private:
  struct Run {
    RunState state = RunState::kFree;
    std::uint64_t stamp = 0;
  };
  Volume(OwnerDirectory owner, LogSink& log) : owner_(std::move(owner)), log_(log) {}
  [[nodiscard]] Status initialise(const Options& options);
  [[nodiscard]] Status open_data(const Options& options);
  [[nodiscard]] Status enter_namespace(const Options& options);
  [[nodiscard]] Status make_namespace(const Fingerprint& fingerprint);
  [[nodiscard]] std::string text_path(const NamespaceFacts& facts) const;
  void tell_damaged_texts(const NamespaceFacts* ours);
  void tell_lost_records(const char* reason, std::uint64_t bytes);
  void remove_empty_namespaces();
  [[nodiscard]] Status open_meta();
  [[nodiscard]] Status make_durable();
  [[nodiscard]] Status write_meta_header();
  [[nodiscard]] Status sync_meta();
  [[nodiscard]] Status write_records();
  [[nodiscard]] Status write_claims();
  // Of the records that there are, in words.
  [[nodiscard]] const char* reason_to_drop(const MetaHeader& wanted) const;
  [[nodiscard]] Status size_meta(std::uint64_t size);
  void reserve_extents_file();
  [[nodiscard]] Status cut(std::uint32_t extents);
  void list_runs();

  OwnerDirectory owner_;
  LogSink& log_;
  ExtentTable table_;
  RunGeometry geometry_;
  Layout layout_;
  MetaHeader meta_;
  std::uint64_t era_ = 0;
  std::vector<Run> runs_;
  UniqueFd data_;
  UniqueFd meta_file_;
  UniqueFd extents_file_;
  std::string room_text_;
  std::uint32_t name_space_ = 0;
  std::uint64_t capacity_ = 0;  // Extents.
  std::uint64_t allocated_bytes_ = 0;
  std::uint64_t reserved_meta_bytes_ = 0;
  std::uint64_t damaged_texts_ = 0;
  bool is_direct_ = false;
};

}  // namespace terrace::tier::disk

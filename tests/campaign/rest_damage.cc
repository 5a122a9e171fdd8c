#include "campaign/rest_damage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <set>

#include "terrace/base/file.h"
#include "terrace/base/rng.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/wire/frame.h"

namespace terrace::campaign {

namespace {
namespace fs = std::filesystem;
using tier::disk::BlockMemory;

constexpr std::uint64_t kBlocks = 16;
constexpr std::uint64_t kPayload = 8192;
constexpr std::uint64_t kFrame = wire::kFrameHeaderBytes + kPayload;
constexpr std::uint64_t kPageBytes = 4096;
constexpr std::uint64_t kRecordsOffset = 2 * kPageBytes;  // In slots.meta.
constexpr std::size_t kSlotRecordBytes = 64;

// Where fields lie: docs/formats/frame.md and disk.md.
struct Field {
  const char* name;
  std::uint64_t offset;
  std::uint64_t bytes;
};
constexpr Field kFrameFields[] = {{"frame.magic", 0, 8},
                                  {"frame.version", 8, 4},
                                  {"frame.codec", 12, 2},
                                  {"frame.group", 14, 2},
                                  {"frame.rank", 16, 2},
                                  {"frame.reserved", 18, 2},
                                  {"frame.generation", 20, 4},
                                  {"frame.length", 24, 8},
                                  {"frame.payload_checksum", 32, 8},
                                  {"frame.hash", 40, 16},
                                  {"frame.content_digest", 56, 32},
                                  {"frame.layout_digest", 88, 32},
                                  {"frame.padding", 120, 3960},
                                  {"frame.header_checksum", 4080, 16},
                                  {"payload.first_sector", 4096, 512},
                                  {"payload.middle", 4608, 7168},
                                  {"payload.last_sector", 11776, 512}};
constexpr Field kRecordFields[] = {
    {"record.hash", 0, 16},      {"record.alias", 16, 8},      {"record.sequence", 24, 8},
    {"record.stamp", 32, 8},     {"record.generation", 40, 4}, {"record.epoch", 44, 4},
    {"record.namespace", 48, 4}, {"record.group", 52, 2},      {"record.state", 54, 2},
    {"record.slot", 56, 4},      {"record.crc", 60, 4}};
constexpr Field kHeaderFields[] = {
    {"meta.magic", 0, 8},    {"meta.version", 8, 4},     {"meta.crc", 12, 4},
    {"meta.epoch", 16, 4},   {"meta.groups", 20, 4},     {"meta.run_slots", 24, 4},
    {"meta.extents", 28, 4}, {"meta.generation", 32, 8}, {"meta.padding", 40, 4056}};

class DamagedDisk {
 public:
  DamagedDisk(const std::string& backend, std::uint64_t seed, Figures& figures)
      : backend_(backend), rng_(seed), figures_(figures), rig_({1, {kPayload}}) {
    rig_.options().backend = backend;
    rig_.options().blocks = kBlocks;
  }
  void run(int rounds) {
    if (!opened()) return;
    for (int i = 0; i < rounds && figures_.findings.empty(); ++i) {
      fill();
      find_frames();
      if (rng_.chance(70)) {
        damage_frames();
      } else {
        rig_.settle();
        rig_.close();
        damage_meta();
        if (!opened()) return;
      }
      look();
    }
  }

 private:
  void find(std::uint64_t& counter, const std::string& what) {
    figures_.find(counter, fmt::format("damaged disk, {}: {}", backend_, what));
  }
  bool opened() {
    const Status status = rig_.open();
    if (!status.is_ok()) find(figures_.hangs, "it does not open: " + status.text());
    return status.is_ok();
  }
  [[nodiscard]] BlockMemory filled(std::uint64_t number, std::uint32_t version) const {
    BlockMemory memory = rig_.blank();
    memory.fill((std::uint64_t{version} << 20U) + number);
    return memory;
  }
  void fill() {
    for (std::uint64_t n = 0; n < kBlocks; ++n) {
      if (rig_.has(n)) continue;
      const std::uint32_t version = next_version_++;
      const BlockMemory memory = filled(n, version);
      const std::uint64_t token = 1'000'000 + version;
      const Status status = rig_.tier().begin_write(token, GroupId(0), tier::disk::hash_of(n),
                                                    n * 3, memory.shards(), memory.checksums());
      ++figures_.operations;
      if (!status.is_ok() || !rig_.await(token).status.is_ok()) {
        return find(figures_.hangs, fmt::format("block {} cannot be written anew", n));
      }
      versions_[n].insert(version);
    }
  }
  [[nodiscard]] UniqueFd open_owned(const std::string& name) const {
    auto file = open_file(rig_.owner() + "/" + name, O_RDWR);
    return file ? *std::move(file) : UniqueFd();
  }
  [[nodiscard]] std::string bytes_of(const UniqueFd& file, std::uint64_t offset,
                                     std::size_t count) {
    std::string bytes(count, '\0');
    if (::pread(file.get(), bytes.data(), count, static_cast<off_t>(offset)) !=
        static_cast<ssize_t>(count)) {
      find(figures_.hangs, "the medium cannot be read by the test");
    }
    return bytes;
  }
  void put(const UniqueFd& file, std::uint64_t offset, const std::string& bytes) {
    if (::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) !=
        static_cast<ssize_t>(bytes.size())) {
      find(figures_.hangs, "the medium cannot be written by the test");
    }
  }
  void flip(const UniqueFd& file, std::uint64_t start, const Field& field) {
    const std::uint64_t at = start + field.offset + rng_.below(field.bytes);
    std::string byte = bytes_of(file, at, 1);
    byte[0] = static_cast<char>(byte[0] ^ (1 << rng_.below(8)));
    put(file, at, byte);
    figures_.inject(backend_, std::string("rest.") + field.name);
  }
  // Offsets of all frames, and what they hold, once older.
  void find_frames() {
    const UniqueFd file = open_owned("0.slots");
    frames_.clear();
    const std::uint64_t bytes = fs::file_size(rig_.owner() + "/0.slots");
    for (std::uint64_t at = 0; at + kFrame <= bytes; at += kPageBytes) {
      if (bytes_of(file, at, 8) != "TRCFRAME") continue;
      frames_.push_back(at);
      older_.try_emplace(at, bytes_of(file, at, kFrame));
    }
  }
  void damage_frames() {
    const UniqueFd file = open_owned("0.slots");
    for (const std::uint64_t at : frames_) {
      const std::uint64_t other = frames_[rng_.below(frames_.size())];
      switch (rng_.below(8)) {
        case 0: {
          const std::string one = bytes_of(file, at, kFrame);
          put(file, at, bytes_of(file, other, kFrame));
          put(file, other, one);
          if (at != other) figures_.inject(backend_, "rest.swapped_blocks");
          break;
        }
        case 1: {
          std::string now = bytes_of(file, at, kFrame);
          put(file, at, older_[at]);
          if (now != older_[at]) figures_.inject(backend_, "rest.replayed_block");
          older_[at] = std::move(now);
          break;
        }
        case 2:
          put(file, at + rng_.below(kFrame / 512) * 512, std::string(512, '\0'));
          figures_.inject(backend_, "rest.zeroed_sector");
          break;
        case 3: {  // Only a part of an older state: a torn write.
          const std::uint64_t part = (1 + rng_.below(kFrame / 512 - 1)) * 512;
          put(file, at, bytes_of(file, other, part));
          figures_.inject(backend_, "rest.torn_block");
          break;
        }
        default:
          flip(file, at, kFrameFields[rng_.below(std::size(kFrameFields))]);
      }
    }
  }
  void damage_meta() {
    const UniqueFd meta = open_owned("ns-0001/slots.meta");
    const UniqueFd extents = open_owned("extents.meta");
    const auto record = [&] { return kRecordsOffset + rng_.below(kBlocks) * kSlotRecordBytes; };
    for (int i = 0; i < 12; ++i) {
      const std::uint64_t kind = rng_.below(20);
      if (kind < 13) {
        flip(meta, record(), kRecordFields[rng_.below(std::size(kRecordFields))]);
      } else if (kind < 15) {
        flip(meta, rng_.below(2) * kPageBytes, kHeaderFields[rng_.below(std::size(kHeaderFields))]);
      } else if (kind < 17) {
        const std::uint64_t one = record();
        const std::uint64_t other = record();
        const std::string bytes = bytes_of(meta, one, kSlotRecordBytes);
        put(meta, one, bytes_of(meta, other, kSlotRecordBytes));
        put(meta, other, bytes);
        figures_.inject(backend_, "rest.swapped_records");
      } else if (kind < 19) {
        replay_records(meta);
      } else if (rng_.chance(30)) {
        flip(extents, kPageBytes, {"extent", 0, 4 * 32});
      }
    }
    old_records_ = bytes_of(meta, kRecordsOffset, kRecordsBytes);
  }
  void replay_records(const UniqueFd& meta) {
    if (old_records_.empty()) return;
    const std::uint64_t at = rng_.below(kBlocks) * kSlotRecordBytes;
    put(meta, kRecordsOffset + at, old_records_.substr(at, kSlotRecordBytes));
    figures_.inject(backend_, "rest.replayed_record");
  }
  // Whatever is delivered as right was sealed under that key.
  void look() {
    for (std::uint64_t n = 0; n < kBlocks; ++n) {
      const BlockMemory memory = rig_.blank();
      const std::uint64_t token = ++next_read_;
      ++figures_.operations;
      if (!rig_.tier()
               .begin_read(token, GroupId(0), tier::disk::hash_of(n), memory.shards(),
                           transfer::IoClass::kTtftRead, kNoDeadline)
               .is_ok()) {
        continue;
      }
      const tier::DiskDone done = rig_.await(token);
      if (done.status.code() == Code::kInternal) find(figures_.hangs, "a read does not end");
      if (!done.status.is_ok()) continue;
      const bool is_right = std::ranges::any_of(versions_[n], [&](std::uint32_t version) {
        const BlockMemory wanted = filled(n, version);
        return memory.equals(wanted) && done.checksums == wanted.checksums();
      });
      if (!is_right || done.alias != n * 3) {
        find(figures_.wrong_bytes, fmt::format("wrong bytes of block {}", n));
      }
    }
    rig_.settle();
  }

  static constexpr std::size_t kRecordsBytes = kBlocks * kSlotRecordBytes;
  const std::string backend_;
  Rng rng_;
  Figures& figures_;
  tier::disk::Rig rig_;
  std::map<std::uint64_t, std::set<std::uint32_t>> versions_;
  std::vector<std::uint64_t> frames_;
  std::map<std::uint64_t, std::string> older_;
  std::string old_records_;
  std::uint32_t next_version_ = 1;
  std::uint64_t next_read_ = 0;
};
}  // namespace

void damage_disk(const std::string& backend, std::uint64_t seed, int rounds, Figures& figures) {
  const std::size_t descriptors = open_descriptors();
  DamagedDisk(backend, seed, figures).run(rounds);
  if (open_descriptors() != descriptors) {
    figures.find(figures.leaks, "damaged disk: descriptors are left open");
  }
}

}  // namespace terrace::campaign

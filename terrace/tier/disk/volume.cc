#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include "terrace/base/check.h"
#include "terrace/base/rng.h"
#include "terrace/tier/disk/medium_internal.h"
#include "terrace/tier/disk/owner_files_internal.h"
#include "terrace/tier/disk/volume_internal.h"
#include "terrace/tier/disk/volume_io_internal.h"

namespace terrace::tier::disk {

namespace {
Result<std::uint64_t> size_of(int file, const std::string& path) {
  struct stat facts{};
  if (::fstat(file, &facts) != 0) return fail(Status::from_errno(errno, "fstat", path));
  return static_cast<std::uint64_t>(facts.st_size);
}

bool holds_at_most(const std::string& directory, const std::string& file) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path() != file) return false;
  }
  return !error;
}
}  // namespace

std::uint64_t draw_era() { return std::max<std::uint64_t>(random_u64(), 1); }

Result<std::unique_ptr<Volume>> Volume::open(OwnerDirectory owner, const Options& options,
                                             LogSink& log) {
  std::unique_ptr<Volume> volume(new Volume(std::move(owner), log));
  volume->layout_ = *options.layout;
  if (volume->owner_.facts.state == DirectoryState::kEmpty) {
    TERRACE_RETURN_IF_ERROR(volume->initialise(options));
  }
  TERRACE_ASSIGN_OR_RETURN(volume->table_, ExtentTable::read(volume->extents_path()));
  TERRACE_ASSIGN_OR_RETURN(volume->extents_file_,
                           open_regular_file(volume->extents_path(), O_RDWR | O_NOFOLLOW));
  TERRACE_RETURN_IF_ERROR(volume->open_data(options));
  TERRACE_RETURN_IF_ERROR(volume->enter_namespace(options));
  return volume;
}

Status Volume::initialise(const Options& options) {
  std::array<std::byte, kPageBytes> page{};
  encode(VolumeHeader{choose_extent_bytes(options.share_bytes), options.now_seconds}, page);
  TERRACE_RETURN_IF_ERROR(
      write_file_atomic(extents_path(), {reinterpret_cast<const char*>(page.data()), page.size()}));
  const auto slash = owner_.directory.rfind('/');
  return sync_directory(owner_.directory.substr(0, slash));
}

Status Volume::open_data(const Options& options) {
  const int flags = O_RDWR | O_CREAT | O_NOFOLLOW;
  is_direct_ = options.is_direct;
  const bool is_by_open = is_direct_ && !options.is_direct_by_fcntl;
  auto file = open_regular_file(data_path(), is_by_open ? flags | O_DIRECT : flags);
  if (!file && is_by_open) {
    file = open_regular_file(data_path(), flags);
    is_direct_ = false;
  }
  if (!file) return file.error();
  data_ = *std::move(file);
  if (options.is_direct && options.is_direct_by_fcntl) {
    is_direct_ = ::fcntl(data_.get(), F_SETFL, O_DIRECT) == 0;
  }
  if (options.is_direct && !is_direct_) {
    log_.write(LogLevel::kWarn,
               fmt::format("disk path={} direct=refused: the file system has no O_DIRECT; its page "
                           "cache is used",
                           owner_.directory));
  }
  for (const std::string& note : notes_on(medium_of(data_.get()))) {
    log_.write(LogLevel::kWarn, fmt::format("disk path={} {}", owner_.directory, note));
  }
  TERRACE_ASSIGN_OR_RETURN(allocated_bytes_, size_of(data_.get(), data_path()));
  allocated_bytes_ -= allocated_bytes_ % table_.extent_bytes();
  return {};
}

Status Volume::enter_namespace(const Options& options) {
  remove_empty_namespaces();
  const NamespaceFacts* ours = owner_.facts.find(options.fingerprint->content_digest(),
                                                 options.fingerprint->layout_digest());
  tell_damaged_texts(ours);
  if (ours == nullptr) {
    TERRACE_RETURN_IF_ERROR(make_namespace(*options.fingerprint));
    ours = &owner_.facts.namespaces.back();
  } else if (!ours->text_problem.empty()) {
    TERRACE_RETURN_IF_ERROR(write_file_atomic(text_path(*ours), options.fingerprint->text()));
  }
  name_space_ = ours->number;
  Status noted = write_file_atomic(owner_.directory + "/" + ours->directory + "/used.txt",
                                   used_text(options.now_seconds));
  if (noted.code() == Code::kInvalid) return noted;  // Somebody put something there.
  if (!noted.is_ok()) {  // A full disk is no reason not to serve what is there.
    log_.write(
        LogLevel::kWarn,
        fmt::format("disk {}: what is there is served, but counts as long unused: free space",
                    noted.message()));
  }
  return sync_directory(owner_.directory);
}

Status Volume::make_namespace(const Fingerprint& fingerprint) {
  NamespaceFacts facts;
  for (const NamespaceFacts& other : owner_.facts.namespaces) {
    facts.number = std::max(facts.number, other.number);
  }
  // Numbers in the table whose directory is gone must not come back to life under ours.
  for (const auto& [number, extents] : table_.extents_by_namespace()) {
    facts.number = std::max(facts.number, number);
  }
  ++facts.number;
  facts.directory = fmt::format("ns-{:04}", facts.number);
  facts.content_digest = fingerprint.content_digest();
  facts.layout_digest = fingerprint.layout_digest();
  facts.text = fingerprint.text();
  TERRACE_RETURN_IF_ERROR(make_directories(owner_.directory + "/" + facts.directory));
  TERRACE_RETURN_IF_ERROR(write_file_atomic(text_path(facts), facts.text));
  owner_.facts.namespaces.push_back(std::move(facts));
  return {};
}

std::string Volume::text_path(const NamespaceFacts& facts) const {
  return fmt::format("{}/{}/fingerprint.txt", owner_.directory, facts.directory);
}

// Nothing is given up because of a text: what its frames prove to be ours is served, the rest stays
// until its space is needed, as that of any other namespace.
void Volume::tell_damaged_texts(const NamespaceFacts* ours) {
  for (const NamespaceFacts& facts : owner_.facts.namespaces) {
    if (facts.text_problem.empty()) continue;
    ++damaged_texts_;
    std::string outcome;
    if (&facts == ours) {
      outcome = "its frames carry this engine's digests, so it is written anew and its blocks stay";
    } else if (!facts.content_digest.empty()) {
      outcome =
          "its frames are those of another engine, whose next start writes it anew; nothing to do";
    } else {
      outcome = fmt::format(
          "no frame there says whose blocks these are, so they are misses until their space is "
          "needed: put a copy of the file back, or delete {}/{} while no engine runs",
          owner_.directory, facts.directory);
    }
    log_.write(facts.content_digest.empty() ? LogLevel::kError : LogLevel::kWarn,
               fmt::format("disk file={} fingerprint=damaged reason=\"{}\": {}", text_path(facts),
                           facts.text_problem, outcome));
  }
}

// A namespace that owns nothing any more leaves only its name behind. Where something else lies in
// its directory it stays as it is, for the text is what its next blocks are known by.
void Volume::remove_empty_namespaces() {
  const auto extents = table_.extents_by_namespace();
  std::erase_if(owner_.facts.namespaces, [&](const NamespaceFacts& facts) {
    if (extents.contains(facts.number)) return false;
    const std::string path = owner_.directory + "/" + facts.directory;
    const std::string text = text_path(facts);
    for (const std::string_view name : kNamespaceFiles) {
      const std::string file = fmt::format("{}/{}", path, name);
      if (file != text) (void)::unlink(file.c_str());
    }
    if (!holds_at_most(path, text)) return false;
    (void)::unlink(text.c_str());
    return ::rmdir(path.c_str()) == 0;
  });
}

VolumeShare Volume::share(std::uint64_t neighbours) {
  VolumeShare share;
  share.held = table_.used() * table_.extent_bytes();
  share.most = kMostExtents * table_.extent_bytes();
  struct statvfs facts{};
  struct stat file{};
  if (::fstatvfs(data_.get(), &facts) == 0 && ::fstat(data_.get(), &file) == 0) {
    const std::uint64_t total = facts.f_blocks * facts.f_frsize;
    const std::uint64_t free = facts.f_bavail * facts.f_frsize;
    const std::uint64_t reserve = reserve_of(total);
    // A file with holes (a sparse copy) was given its size once and keeps it.
    const auto held = std::max(static_cast<std::uint64_t>(file.st_blocks) * 512,
                               static_cast<std::uint64_t>(file.st_size));
    const std::uint64_t growth = free > reserve ? (free - reserve) / neighbours : 0;
    share.most = std::min(share.most, held + growth);
    room_text_ = fmt::format(
        "{}: holds {} MiB; its file system has {} MiB, {} MiB free, of which {} MiB stay free for "
        "others",
        owner_.directory, held >> 20U, total >> 20U, free >> 20U, std::min(free, reserve) >> 20U);
    if (neighbours > 1) room_text_ += fmt::format("; {} of disk.paths share it", neighbours);
  }
  // Writing past this limit is a signal that would end the engine.
  struct rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    share.most = std::min<std::uint64_t>(share.most, limit.rlim_cur);
  }
  return share;
}

std::uint64_t Volume::device() const {
  struct stat facts{};
  return ::fstat(data_.get(), &facts) == 0 ? facts.st_dev : 0;
}

Status Volume::fit(std::uint64_t bytes, std::uint64_t generation) {
  capacity_ = std::min(bytes / table_.extent_bytes(), kMostExtents);
  TERRACE_RETURN_IF_ERROR(open_meta());
  TERRACE_ASSIGN_OR_RETURN(geometry_,
                           plan_runs(layout_, table_.extent_bytes(), capacity_, meta_.run_extents));
  TERRACE_RETURN_IF_ERROR(cut(static_cast<std::uint32_t>(capacity_)));
  const MetaHeader wanted{meta_.epoch,
                          static_cast<std::uint32_t>(layout_.groups.size()),
                          geometry_.run_slots,
                          geometry_.run_extents,
                          std::max(meta_.generation, generation),
                          meta_.era,
                          meta_.is_in_doubt};
  list_runs();
  TERRACE_ASSIGN_OR_RETURN(const std::uint64_t size, size_of(meta_file_.get(), meta_path()));
  const bool is_new = meta_ != wanted || meta_.era == 0;
  if (is_new) {
    // New, damaged or of another shape: what records there are must not be believed. Or a reset is
    // known elsewhere that this directory has not seen. Or its frames do not say between which
    // resets they were written.
    tell_lost_records(reason_to_drop(wanted), 0);
    meta_ = wanted;
    ++meta_.epoch;
    meta_.era = draw_era();
    meta_.is_in_doubt = false;  // No record counts.
  } else {
    tell_lost_records("it was cut short", size);
  }
  if (const Status kept = make_durable(); !kept.is_ok()) {
    // The next owner must not believe what this one could not make so. As far as that can be
    // written, and not synced: it matters while the system goes on.
    meta_.is_in_doubt = true;
    (void)write_meta_header();
    // A full disk that copies on write is no reason not to serve what is there.
    if (is_new || kept.code() != Code::kExhausted) return kept;
    log_.write(LogLevel::kWarn,
               fmt::format("disk {}: what is there is served: free space", kept.message()));
  }
  era_ = meta_.era;
  reserve_extents_file();
  return size_meta(size);
}

const char* Volume::reason_to_drop(const MetaHeader& wanted) const {
  if (meta_.epoch == 0 || (meta_.generation == wanted.generation && meta_ != wanted)) {
    return "its header is missing, damaged or of another shape";
  }
  if (meta_ != wanted) return "a reset dropped them";
  return "they are of an earlier Terrace, whose frames do not say before which reset they were "
         "written";
}

// Blocks on the medium come later, in the background (Allocator): zeros for many records take long.
Status Volume::size_meta(std::uint64_t size) {
  if (size < meta_bytes() && ::ftruncate(meta_file_.get(), static_cast<off_t>(meta_bytes())) != 0) {
    return Status::from_errno(errno, "ftruncate", meta_path());
  }
  struct stat facts{};
  if (::fstat(meta_file_.get(), &facts) != 0) {
    return Status::from_errno(errno, "fstat", meta_path());
  }
  // Sparse: new, grown, or of an earlier Terrace, which reserved nothing.
  const bool is_whole = static_cast<std::uint64_t>(facts.st_blocks) * 512 >= meta_bytes();
  reserved_meta_bytes_ = is_whole ? meta_bytes() : kRecordsOffset;
  return {};
}

// So that a full disk cannot stop a claim: at most 32 MiB, mostly less than a page.
void Volume::reserve_extents_file() {
  const std::uint64_t bytes = ExtentTable::offset(static_cast<std::uint32_t>(capacity_));
  Status status;
  if (::fallocate(extents_file_.get(), 0, 0, static_cast<off_t>(bytes)) != 0) {
    const int error = errno;
    const auto size = size_of(extents_file_.get(), extents_path());
    if (error != EOPNOTSUPP || !size) {
      status = Status::from_errno(error, "fallocate", extents_path());
    } else if (*size < bytes) {
      const std::vector<std::byte> zeros(bytes - *size);
      status = write_at(extents_file_.get(), zeros, *size, extents_path());
    }
  }
  if (status.is_ok()) return;
  log_.write(LogLevel::kWarn,
             fmt::format("disk {}: what is there is served, but new blocks may be dropped: free "
                         "space or lower disk.size",
                         status.message()));
}

// Whole pages, for reads that bypass the page cache.
std::uint64_t Volume::meta_bytes() const {
  return round_up(Bytes(record_offset(0, slots())), Bytes(kPageBytes)).value();
}

std::pair<std::uint64_t, std::uint64_t> Volume::next_meta_gap(std::uint64_t offset,
                                                              std::uint64_t most) const {
  const std::uint64_t run_bytes = records_end(0) - kRecordsOffset;
  auto run = static_cast<std::uint32_t>((offset - kRecordsOffset) / run_bytes);
  for (; run < run_count() && run_state(run) == RunState::kOurs; ++run) offset = records_end(run);
  if (run >= run_count()) return {meta_bytes(), meta_bytes()};
  std::uint64_t end = offset;
  while (run < run_count() && run_state(run) != RunState::kOurs && end - offset < most) {
    end = records_end(run++);
  }
  return {offset, std::min(end, offset + most)};
}

// Names what is lost where runs of ours have their records at or behind `bytes`.
void Volume::tell_lost_records(const char* reason, std::uint64_t bytes) {
  std::uint32_t lost = 0;
  for (std::uint32_t run = 0; run < run_count(); ++run) {
    const std::uint64_t end = record_offset(0, (run + 1) * geometry_.run_slots);
    if (run_state(run) == RunState::kOurs && end > bytes) ++lost;
  }
  if (lost == 0) return;
  log_.write(LogLevel::kError,
             fmt::format("disk file={} lost_blocks={} reason=\"{}\": at most so many blocks are "
                         "misses and their space is used anew; nothing to do",
                         meta_path(), std::uint64_t{lost} * geometry_.run_slots, reason));
}

std::string Volume::meta_path() const {
  return fmt::format("{}/ns-{:04}/slots.meta", owner_.directory, name_space_);
}

Status Volume::open_meta() {
  TERRACE_ASSIGN_OR_RETURN(meta_file_,
                           open_regular_file(meta_path(), O_RDWR | O_CREAT | O_NOFOLLOW));
  meta_ = {};
  bool is_found = false;
  for (std::size_t copy = 0; copy < kMetaHeaderCopies; ++copy) {
    std::array<std::byte, kPageBytes> page{};
    const ssize_t got =
        ::pread(meta_file_.get(), page.data(), page.size(), static_cast<off_t>(copy * kPageBytes));
    if (got < 0) return Status::from_errno(errno, "pread", meta_path());
    const auto header = decode_meta(page);
    if (!header) continue;
    const bool is_in_doubt = meta_.is_in_doubt || header->is_in_doubt;
    if (!is_found || header->epoch > meta_.epoch) meta_ = *header;
    meta_.is_in_doubt = is_in_doubt;
    is_found = true;
  }
  if (is_found) return {};
  TERRACE_ASSIGN_OR_RETURN(const std::uint64_t size, size_of(meta_file_.get(), meta_path()));
  if (size == 0) return {};
  log_.write(LogLevel::kWarn,
             fmt::format("disk file={} header=damaged: its blocks are forgotten", meta_path()));
  // Durably before a new header, or old records could come to life under its epoch.
  if (::ftruncate(meta_file_.get(), 0) != 0 || ::fsync(meta_file_.get()) != 0) {
    return Status::from_errno(errno, "ftruncate", meta_path());
  }
  return {};
}

// Forgets what lies beyond the edge, on the medium first, and gives the space back.
Status Volume::cut(std::uint32_t extents) {
  const auto changed = table_.shrink(extents);
  std::array<std::byte, kExtentRecordBytes> bytes{};
  for (const std::uint32_t extent : changed) {
    encode(ExtentRecord{}, extent, bytes);
    TERRACE_RETURN_IF_ERROR(
        write_at(extents_file_.get(), bytes, ExtentTable::offset(extent), extents_path()));
  }
  if (!changed.empty()) {
    TERRACE_RETURN_IF_ERROR(sync_file(extents_file_.get(), extents_path()));
  }
  if (allocated_bytes_ > capacity_bytes()) {
    if (::ftruncate(data_.get(), static_cast<off_t>(capacity_bytes())) != 0) {
      return Status::from_errno(errno, "ftruncate", data_path());
    }
    allocated_bytes_ = capacity_bytes();
  }
  return {};
}

void Volume::list_runs() {
  const std::uint32_t length = geometry_.run_extents;
  runs_.assign(capacity_ / length, {});
  for (std::uint32_t run = 0; run < runs_.size(); ++run) {
    const std::uint32_t first = run * length;
    const ExtentRecord& record = table_[first];
    if (record.name_space == name_space_ && record.first == first && record.count == length) {
      runs_[run] = {RunState::kOurs, record.stamp};
      continue;
    }
    for (std::uint32_t extent = first; extent < first + length; ++extent) {
      if (table_[extent].name_space != 0) runs_[run].state = RunState::kForeign;
    }
  }
}

std::int64_t Volume::run_used_seconds(std::uint32_t run) const {
  std::int64_t last = 0;
  const std::uint32_t first = run * geometry_.run_extents;
  for (std::uint32_t extent = first; extent < first + geometry_.run_extents; ++extent) {
    for (const NamespaceFacts& facts : owner_.facts.namespaces) {
      if (facts.number == table_[extent].name_space && facts.has_blocks) {
        last = std::max(last, facts.used_seconds);
      }
    }
  }
  return last;
}

void Volume::set_run(std::uint32_t run, RunState state, std::uint64_t stamp) {
  TERRACE_CHECK(run < runs_.size());
  runs_[run] = {state, stamp};
}

void Volume::encode_claim(std::uint32_t run, std::uint64_t stamp,
                          std::vector<std::byte>& target) const {
  const std::uint32_t first = run * geometry_.run_extents;
  const std::size_t start = target.size();
  target.resize(start + geometry_.run_extents * kExtentRecordBytes);
  for (std::uint32_t i = 0; i < geometry_.run_extents; ++i) {
    encode(ExtentRecord{name_space_, first, geometry_.run_extents, stamp}, first + i,
           std::span(target).subspan(start + i * kExtentRecordBytes).first<kExtentRecordBytes>());
  }
}

}  // namespace terrace::tier::disk

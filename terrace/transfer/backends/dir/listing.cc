#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "terrace/transfer/backends/dir/listing_internal.h"

namespace terrace::transfer::dir {

namespace {
constexpr std::size_t kMostLeftovers = 64;  // Removed per folder and page; the rest next time.
// What of all names sorts next behind a folder's, and is none: a page that ended with a folder goes
// on from there.
constexpr char kBehind = '!';

std::vector<std::string> parts_of(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    parts.emplace_back(path.substr(0, slash));
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  return parts;
}
}  // namespace

Status Listing::run(ObjectAnswer& answer) {
  Status status = walk(answer);
  if (status.code() != Code::kDeadline || passed_.empty()) return status;
  answer.next = passed_;
  return {};
}

// A page ends early, to be gone on with, while there is time to answer it; one that has passed
// nothing would be asked for again and again.
Status Listing::check_time() const {
  if (passed_.empty() || SystemClock().now() < half_time_) return check_deadline(request_);
  return {Code::kDeadline, "half of the time is over"};
}

Status Listing::walk(ObjectAnswer& answer) {
  answer_ = &answer;
  const Nanoseconds now = SystemClock().now();
  if (request_.deadline != kNoDeadline) {
    half_time_ = now + Nanoseconds((request_.deadline - now).value() / 2);
  }
  const std::string& start = request_.name;
  const std::size_t slash = start.rfind('/');
  Level level;
  if (slash != std::string::npos) {
    level.folder = start.substr(0, slash + 1);
    level.start = start.substr(slash + 1);
  } else {
    level.start = start;
  }
  const std::vector<std::string> after = parts_of(request_.after);
  if (!after.empty()) {
    if (!request_.after.starts_with(level.folder)) {
      return {Code::kInvalid,
              fmt::format("list {}: the page before was of another listing", start)};
    }
    level.after = Parts(after).subspan(parts_of(level.folder).size());
  }
  return visit_folder(level);
}

Result<UniqueFd> Listing::open(const std::string& folder) const {
  const std::string path = folder.empty() ? "." : folder.substr(0, folder.size() - 1);
  UniqueFd opened(making_.calls->open_below(root_, path.c_str(), O_RDONLY | O_DIRECTORY, 0));
  if (!opened.is_open()) return fail(failure(errno, "open", root_path_ + "/" + folder));
  return opened;
}

bool Listing::Wanted::matches(std::string_view entry) const {
  if (entry < after || (entry == after && is_after_taken)) return false;
  if (!is_in_bucket && is_bucket(entry)) return true;
  return entry.starts_with(start) && check_object_name(entry).is_ok();
}

Result<std::vector<std::string>> Listing::read_entries(const std::string& folder,
                                                       const Wanted& wanted) const {
  TERRACE_RETURN_IF_ERROR(check_time());
  std::vector<std::string> smallest;  // A heap, the largest first.
  std::vector<std::string> leftovers;
  auto opened = open(folder);
  if (!opened) {
    const Code code = opened.error().code();
    // Vanished, or a file or a link of somebody else's.
    if (code == Code::kNotFound || code == Code::kCorrupt) return smallest;
    return fail(opened.error());
  }
  const int descriptor = opened->get();
  const int error = each_entry(*std::move(opened), [&](const char* entry) {
    const std::string_view name = entry;
    if (is_leftover(name)) note_leftover(descriptor, entry, leftovers);
    if (!wanted.matches(name)) return true;
    if (smallest.size() == kMostListed) {
      if (name > smallest.front()) return true;
      std::pop_heap(smallest.begin(), smallest.end());
      smallest.pop_back();
    }
    smallest.emplace_back(name);
    std::push_heap(smallest.begin(), smallest.end());
    return true;
  });
  if (error != 0 && error != ENOENT) {
    return fail(failure(error, "read folder", root_path_ + "/" + folder));
  }
  if (!leftovers.empty()) remove_leftovers(folder, leftovers);
  std::sort_heap(smallest.begin(), smallest.end());
  return smallest;
}

Status Listing::visit_folder(const Level& level) {
  Wanted wanted;
  wanted.start = level.start;
  if (!level.after.empty()) wanted.after = level.after.front();  // The page before ended in it.
  for (;;) {
    TERRACE_ASSIGN_OR_RETURN(const std::vector<std::string> entries,
                             read_entries(level.folder, wanted));
    for (const std::string& entry : entries) {
      Level below;
      below.folder = level.folder + entry + "/";
      if (!level.after.empty() && entry == level.after.front()) {
        below.after = level.after.subspan(1);
      }
      if (is_bucket(entry)) {
        below.start = level.start;
        TERRACE_RETURN_IF_ERROR(visit_bucket(below));
      } else {
        TERRACE_RETURN_IF_ERROR(visit_folder(below));
      }
      if (is_full()) return {};
      passed_ = level.folder + entry + kBehind;
    }
    if (entries.size() < kMostListed) return {};
    wanted.after = entries.back();
    wanted.is_after_taken = true;
  }
}

Status Listing::visit_bucket(const Level& level) {
  Wanted wanted{true, level.start, {}, true};
  if (!level.after.empty()) wanted.after = level.after.front();
  const std::string above = level.folder.substr(0, level.folder.size() - 5);  // "=1f3/"
  const std::string bucket = level.folder.substr(above.size(), 4);
  for (;;) {
    TERRACE_ASSIGN_OR_RETURN(const std::vector<std::string> entries,
                             read_entries(level.folder, wanted));
    if (entries.empty()) return {};
    const auto folder = open(level.folder);
    if (!folder) return folder.error().code() == Code::kNotFound ? Status() : folder.error();
    for (const std::string& entry : entries) {
      TERRACE_RETURN_IF_ERROR(check_time());
      passed_ = level.folder + entry;
      struct stat facts{};
      // What is in another's bucket, no regular file, or empty cannot be got: it is no object.
      if (bucket_of(entry) != bucket) continue;
      if (making_.calls->facts_at(folder->get(), entry.c_str(), &facts) != 0) continue;
      if (!S_ISREG(facts.st_mode) || facts.st_size == 0) continue;
      answer_->found.push_back(
          {above + entry, static_cast<std::uint64_t>(facts.st_size), facts.st_mtim.tv_sec});
      if (is_full()) {
        answer_->next = passed_;
        return {};
      }
    }
    if (entries.size() < kMostListed) return {};
    wanted.after = entries.back();
  }
}

void Listing::note_leftover(int folder, const char* name,
                            std::vector<std::string>& leftovers) const {
  struct stat facts{};
  if (leftovers.size() >= kMostLeftovers) return;
  if (making_.calls->facts_at(folder, name, &facts) != 0 || !S_ISREG(facts.st_mode)) return;
  const std::int64_t age = SystemClock().wall_seconds() - facts.st_mtim.tv_sec;
  if (age >= making_.leftover_age_seconds) leftovers.emplace_back(name);
}

// They are old by this node's clock, which may be wrong: a file made now says what the file
// system's is. Where none can be made they stay.
void Listing::remove_leftovers(const std::string& folder,
                               const std::vector<std::string>& leftovers) const {
  const auto opened = open(folder);
  if (!opened) return;
  FileCalls& calls = *making_.calls;
  const auto mark = Unfinished::create(making_, opened->get(), folder);
  struct stat now{};
  char byte = 0;
  const iovec piece{&byte, 1};
  if (!mark || calls.write_at(mark->file(), &piece, 1, 0) != 1 ||
      calls.sync_data(mark->file()) != 0 || calls.facts_of(mark->file(), &now) != 0) {
    return;
  }
  for (const std::string& name : leftovers) {
    struct stat facts{};
    if (calls.facts_at(opened->get(), name.c_str(), &facts) != 0) continue;
    const std::int64_t age = now.st_mtim.tv_sec - facts.st_mtim.tv_sec;
    if (age >= making_.leftover_age_seconds) (void)calls.remove(opened->get(), name.c_str());
  }
}

}  // namespace terrace::transfer::dir

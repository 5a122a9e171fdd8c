#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "terrace/tier/disk/budget_keeper_internal.h"

namespace terrace::tier::disk {

namespace {
struct Device {
  std::uint64_t bytes = 0;
  std::uint64_t slots = 0;  // Of ours.
};

// Slots are written alike, so that device sets the pace which is small for its share of them.
double bytes_of_devices(const Context& context) {
  std::map<std::uint64_t, Device> devices;
  std::uint64_t slots = 0;
  for (const auto& volume : context.volumes) {
    struct statvfs facts{};
    if (::statvfs(volume->directory().c_str(), &facts) != 0) continue;
    Device& device = devices[volume->device()];
    device.bytes = std::uint64_t{facts.f_blocks} * facts.f_frsize;
    device.slots += volume->slots();
    slots += volume->slots();
  }
  double least = 0;
  for (const auto& [id, device] : devices) {
    if (device.slots == 0) continue;
    const double allowed = static_cast<double>(device.bytes) * static_cast<double>(slots) /
                           static_cast<double>(device.slots);
    least = least == 0 ? allowed : std::min(least, allowed);
  }
  return least;
}

WriteBudget::Options budget_of(const Context& context) {
  const DiskTier::Options& options = context.options;
  std::uint64_t bytes = options.write_budget.value();
  if (options.writes_per_day > 0) {
    const double by_device = std::max(1.0, options.writes_per_day * bytes_of_devices(context));
    const auto rounded = static_cast<std::uint64_t>(by_device);
    bytes = bytes == 0 ? rounded : std::min(bytes, rounded);
  }
  return {bytes, block_bytes_of(options.layout)};
}

// kNotFound = there is none. Errors else: kCorrupt, kIo.
Result<WriteAccount> read_account(int file, const std::string& path) {
  std::vector<std::byte> page(kPageBytes);
  const ssize_t got = ::pread(file, page.data(), page.size(), 0);
  if (got < 0) return fail(Status::from_errno(errno, "pread", path));
  if (got == 0) return fail(Code::kNotFound, path + ": empty");
  const auto account = decode_account(std::span<const std::byte, kPageBytes>(page));
  if (!account) return fail(Code::kCorrupt, path + ": torn, damaged or of another version");
  return *account;
}

Status write_account(int file, const std::string& path, const WriteAccount& account) {
  std::vector<std::byte> page(kPageBytes);
  encode(account, std::span<std::byte, kPageBytes>(page.data(), kPageBytes));
  const ssize_t put = ::pwrite(file, page.data(), page.size(), 0);
  if (put != static_cast<ssize_t>(page.size())) {
    return Status::from_errno(put < 0 ? errno : ENOSPC, "pwrite", path);
  }
  if (::fdatasync(file) != 0) return Status::from_errno(errno, "fdatasync", path);
  return {};
}

}  // namespace

BudgetKeeper::BudgetKeeper(Context& context)
    : context_(context), copies_(context.volumes.size()), budget_(open()) {}

WriteBudget BudgetKeeper::open() {
  const WriteBudget::Options options = budget_of(context_);
  const Nanoseconds now = context_.clock.now();
  const std::int64_t wall = context_.clock.wall_seconds();
  if (options.bytes_per_day == 0) return {options, {}, now, wall};
  WriteAccounts found;
  Status refusal;
  for (std::uint32_t v = 0; v < copies_.size(); ++v) {
    Status status = open_copy(v, found);
    if (status.is_ok()) continue;
    found.has_unread = true;
    context_.log.write(LogLevel::kWarn,
                       fmt::format("disk write_budget account=not_read reason=\"{}\": what may be "
                                   "written starts at nothing",
                                   status.message()));
    if (!copies_[v].file.is_open()) refusal = std::move(status);
  }
  choose_set(found);
  WriteBudget budget(options, found, now, wall);
  if (const auto account = budget.due(now, wall); account && set_copies_ > 0) {
    refusal = write_first(*account);
  }
  budget.saved(refusal.is_ok(), now);
  left_.set(budget.level(now));
  if (!refusal.is_ok()) tell(refusal);
  context_.log.write(
      LogLevel::kInfo,
      fmt::format("disk write_budget={} left={} account={}", options.bytes_per_day,
                  budget.level(now),
                  found.is_whole() ? "found" : (found.copies.empty() ? "new" : "in_part")));
  return budget;
}

Status BudgetKeeper::open_copy(std::uint32_t v, WriteAccounts& found) {
  Copy& copy = copies_[v];
  copy.path = context_.volumes[v]->directory() + "/writes.meta";
  copy.page.resize(kPageBytes);
  TERRACE_ASSIGN_OR_RETURN(copy.file, open_regular_file(copy.path, O_RDWR | O_CREAT | O_NOFOLLOW));
  const auto account = read_account(copy.file.get(), copy.path);
  if (account) {
    found.copies.push_back(*account);
  } else if (account.error().code() != Code::kNotFound) {
    return account.error();
  }
  return {};
}

// The same one again where it is these directories', so that a crash in the middle of the first
// account makes no difference.
void BudgetKeeper::choose_set(const WriteAccounts& found) {
  for (const Copy& copy : copies_) set_copies_ += copy.file.is_open() ? 1 : 0;
  const bool is_same =
      found.is_whole() && found.copies.size() == set_copies_ && found.copies.front().set != 0;
  set_ = is_same ? found.copies.front().set : draw_era();
}

// ok = one is durable.
Status BudgetKeeper::write_first(const WriteAccount& account) {
  WriteAccount whole = account;
  whole.set = set_;
  whole.copies = set_copies_;
  bool is_durable = false;
  Status refusal;
  for (const Copy& copy : copies_) {
    if (!copy.file.is_open()) continue;
    Status status = write_account(copy.file.get(), copy.path, whole);
    is_durable = is_durable || status.is_ok();
    if (!status.is_ok()) refusal = std::move(status);
  }
  return is_durable ? Status() : refusal;
}

bool BudgetKeeper::may_push(std::uint32_t v) const {
  return copies_[v].file.is_open() && !copies_[v].is_flying && context_.health.may_read(v);
}

void BudgetKeeper::push(const WriteAccount& account) {
  WriteAccount whole = account;
  whole.set = set_;
  whole.copies = set_copies_;
  ++number_;
  is_awaited_ = true;
  for (std::uint32_t v = 0; v < copies_.size(); ++v) {
    if (!may_push(v)) continue;
    Copy& copy = copies_[v];
    encode(whole, std::span<std::byte, kPageBytes>(copy.page));
    copy.number = number_;
    copy.is_flying = true;
    transfer::Transfer transfer;
    transfer.token = Ticket{Purpose::kAccountWrite, 0, v}.token();
    transfer.op = transfer::IoOp::kWrite;
    transfer.file = copy.file.get();
    transfer.pieces[0] = {copy.page.data(), copy.page.size()};
    transfer.piece_count = 1;
    context_.push(v, transfer);
  }
}

void BudgetKeeper::advance() {
  const Nanoseconds now = context_.clock.now();
  if (budget_.bytes_per_day() == 0) return;
  left_.set(budget_.level(now));
  // What is said of them is said by Health. Should it come late, it says less than is left.
  if (is_awaited_ && is_given_up()) {
    is_awaited_ = false;
    budget_.saved(false, now);
  }
  if (is_awaited_) return;
  bool is_any_open = false;
  for (std::uint32_t v = 0; v < copies_.size(); ++v) is_any_open = is_any_open || may_push(v);
  if (!is_any_open) return;
  if (is_last_due_) {
    if (is_saving()) return;  // So that all of them have it.
    if (const auto account = budget_.last(now, context_.clock.wall_seconds())) push(*account);
  } else if (const auto account = budget_.due(now, context_.clock.wall_seconds())) {
    push(*account);
  }
}

bool BudgetKeeper::is_given_up() const {
  for (std::uint32_t v = 0; v < copies_.size(); ++v) {
    const Copy& copy = copies_[v];
    if (copy.is_flying && copy.number == number_ && context_.health.may_read(v)) return false;
  }
  return true;
}

void BudgetKeeper::finish(Purpose purpose, std::uint32_t v, const Status& status) {
  Copy& copy = copies_[v];
  if (purpose == Purpose::kAccountWrite && status.is_ok()) {
    transfer::Transfer transfer;
    transfer.token = Ticket{Purpose::kAccountSync, 0, v}.token();
    transfer.op = transfer::IoOp::kSync;
    transfer.file = copy.file.get();
    return context_.push(v, transfer);
  }
  copy.is_flying = false;
  if (!is_awaited_ || copy.number != number_) return;
  if (status.is_ok() || is_given_up()) end_account(status);
}

void BudgetKeeper::end_account(const Status& status) {
  is_awaited_ = false;
  budget_.saved(status.is_ok(), context_.clock.now());
  if (status.is_ok() && !has_failed_) return;
  tell(status);
}

void BudgetKeeper::tell(const Status& status) {
  has_failed_ = !status.is_ok();
  std::string problem;
  if (has_failed_) {
    problem = fmt::format(
        "disk.write_budget: {}: what was written cannot be kept, so nothing more is written; {}, "
        "or set disk.write_budget and disk.dwpd to 0",
        status.message(),
        set_copies_ > 0 ? "it is tried again every 10 s: check the device and the kernel's log"
                        : "put that right and start again");
  }
  {
    const MutexLock lock(mutex_);
    if (problem_ == problem) return;
    problem_ = problem;
  }
  if (has_failed_) {
    context_.log.write(LogLevel::kError, "disk problem=\"" + problem + "\"");
  } else {
    context_.log.write(LogLevel::kInfo, "disk write_budget account=kept");
  }
}

std::string BudgetKeeper::problem() const {
  const MutexLock lock(mutex_);
  return problem_;
}

bool BudgetKeeper::is_saving() const {
  for (std::uint32_t v = 0; v < copies_.size(); ++v) {
    if (copies_[v].is_flying && context_.health.may_read(v)) return true;
  }
  return false;
}

void BudgetKeeper::name_files(transfer::Backend& backend) const {
  for (const Copy& copy : copies_) {
    if (copy.file.is_open()) backend.name_file(copy.file.get(), copy.path);
  }
}

void BudgetKeeper::stop() {
  is_last_due_ = true;
  advance();
}

}  // namespace terrace::tier::disk

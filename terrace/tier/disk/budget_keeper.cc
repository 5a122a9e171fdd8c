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
constexpr std::uint32_t kVolume = 0;  // The first directory.

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

std::optional<WriteAccount> read_account(int file) {
  std::vector<std::byte> page(kPageBytes);
  const ssize_t got = ::pread(file, page.data(), page.size(), 0);
  if (got != static_cast<ssize_t>(page.size())) return std::nullopt;
  return decode_account(std::span<const std::byte, kPageBytes>(page.data(), kPageBytes));
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
    : context_(context), page_(kPageBytes), budget_(open()) {}

WriteBudget BudgetKeeper::open() {
  const WriteBudget::Options options = budget_of(context_);
  const Nanoseconds now = context_.clock.now();
  const std::int64_t wall = context_.clock.wall_seconds();
  if (options.bytes_per_day == 0) return {options, std::nullopt, now, wall};
  path_ = context_.volumes.front()->directory() + "/writes.meta";
  auto file = open_regular_file(path_, O_RDWR | O_CREAT | O_NOFOLLOW);
  Status status = file ? Status() : file.error();
  std::optional<WriteAccount> found;
  if (file) {
    file_ = *std::move(file);
    found = read_account(file_.get());
  }
  WriteBudget budget(options, found, now, wall);
  if (const auto account = budget.due(now, wall); account && status.is_ok()) {
    status = write_account(file_.get(), path_, *account);
  }
  budget.saved(status.is_ok(), now);
  left_.set(budget.level(now));
  if (!status.is_ok()) {
    problem_ = fmt::format(
        "disk.write_budget: {}: what was written cannot be kept, so nothing is written; put that "
        "right and start again, or set disk.write_budget and disk.dwpd to 0",
        status.message());
    context_.log.write(LogLevel::kError, "disk problem=\"" + problem_ + "\"");
  }
  context_.log.write(LogLevel::kInfo,
                     fmt::format("disk write_budget={} left={} account={}", options.bytes_per_day,
                                 budget.level(now), found ? "found" : "new"));
  return budget;
}

void BudgetKeeper::push(const WriteAccount& account) {
  encode(account, std::span<std::byte, kPageBytes>(page_.data(), kPageBytes));
  transfer::Transfer transfer;
  transfer.token = Ticket{Purpose::kAccountWrite, 0, 0}.token();
  transfer.op = transfer::IoOp::kWrite;
  transfer.file = file_.get();
  transfer.pieces[0] = {page_.data(), page_.size()};
  transfer.piece_count = 1;
  is_saving_ = true;
  context_.push(kVolume, transfer);
}

void BudgetKeeper::advance() {
  const Nanoseconds now = context_.clock.now();
  if (budget_.bytes_per_day() == 0) return;
  left_.set(budget_.level(now));
  if (is_saving_ || !file_.is_open()) return;
  if (is_last_due_) {
    if (const auto account = budget_.last(now, context_.clock.wall_seconds())) push(*account);
  } else if (const auto account = budget_.due(now, context_.clock.wall_seconds())) {
    push(*account);
  }
}

void BudgetKeeper::finish(Purpose purpose, const Status& status) {
  if (purpose == Purpose::kAccountWrite && status.is_ok()) {
    transfer::Transfer transfer;
    transfer.token = Ticket{Purpose::kAccountSync, 0, 0}.token();
    transfer.op = transfer::IoOp::kSync;
    transfer.file = file_.get();
    return context_.push(kVolume, transfer);
  }
  is_saving_ = false;
  budget_.saved(status.is_ok(), context_.clock.now());
}

void BudgetKeeper::stop() {
  is_last_due_ = true;
  advance();
}

}  // namespace terrace::tier::disk

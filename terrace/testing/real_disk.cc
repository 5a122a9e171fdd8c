#include "terrace/testing/real_disk.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <vector>

namespace terrace::testing {

namespace {
constexpr int kMostTries = 16;  // Others take loop devices, too.

bool run(const std::string& program, std::initializer_list<std::string> words) {
  std::vector<std::string> all(words);
  std::vector<char*> arguments{const_cast<char*>(program.c_str())};
  for (std::string& word : all) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  std::array<char*, 1> environment{nullptr};
  if (::posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments.data(),
                    environment.data()) != 0) {
    return false;
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && status == 0;
}
}  // namespace

RealDisk::RealDisk(std::uint64_t bytes) {
  is_ext4_ = make_ext4(bytes);
  if (is_ext4_) {
    kind_ = "ext4 on " + device_;
    is_mounted_ = true;
    return;
  }
  kind_ = "tmpfs: no loop device, or no mkfs.ext4";
  const std::string options = "size=" + std::to_string(bytes);
  is_mounted_ = ::mount("tmpfs", path().c_str(), "tmpfs", 0, options.c_str()) == 0;
}

RealDisk::~RealDisk() {
  // The device lets go of its file with the last one that holds it.
  if (is_mounted_) ::umount2(path().c_str(), MNT_DETACH);
}

bool RealDisk::make_ext4(std::uint64_t bytes) {
  const std::string image = scratch_.path() + "/image";
  if (auto file = open_file(image, O_RDWR | O_CREAT);
      !file || ::ftruncate(file->get(), static_cast<off_t>(bytes)) != 0) {
    return false;
  }
  // No reserve for root, which tests run as: full is full.
  return run("/sbin/mkfs.ext4", {"-q", "-F", "-m", "0", image}) && attach_loop() && mount_ext4();
}

bool RealDisk::attach_loop() {
  const auto control = open_file("/dev/loop-control", O_RDWR);
  auto image = open_file(scratch_.path() + "/image", O_RDWR);
  if (!control || !image) return false;
  for (int tries = 0; tries < kMostTries; ++tries) {
    const int number = ::ioctl(control->get(), LOOP_CTL_GET_FREE);
    if (number < 0) return false;
    device_ = "/dev/loop" + std::to_string(number);
    auto loop = open_file(device_, O_RDWR);
    if (!loop) return false;
    loop_config config{};
    config.fd = static_cast<__u32>(image->get());
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (::ioctl(loop->get(), LOOP_CONFIGURE, &config) == 0) {
      loop_ = *std::move(loop);
      return true;
    }
    if (errno != EBUSY) return false;
  }
  return false;
}

bool RealDisk::mount_ext4() {
  return ::mount(device_.c_str(), path().c_str(), "ext4", 0, "errors=remount-ro") == 0;
}

bool RealDisk::turn_read_only() {
  if (!is_ext4_) {
    return ::mount("tmpfs", path().c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  }
  const std::string name = device_.substr(device_.rfind('/') + 1);
  std::ofstream trigger("/sys/fs/ext4/" + name + "/trigger_fs_error");
  return (trigger << "a test of Terrace\n").flush().good();
}

bool RealDisk::turn_writable() {
  if (!is_ext4_) return ::mount("tmpfs", path().c_str(), "tmpfs", MS_REMOUNT, nullptr) == 0;
  if (::umount2(path().c_str(), 0) != 0) return false;
  is_mounted_ = mount_ext4();
  return is_mounted_;
}

void RealDisk::fill_up(const std::string& name) const {
  const auto file = open_file(path() + "/" + name, O_WRONLY | O_CREAT | O_APPEND);
  if (!file) return;
  const std::string megabyte(1 << 20, 'x');
  for (std::size_t bytes = megabyte.size(); bytes > 0;) {
    if (::write(file->get(), megabyte.data(), bytes) <= 0) bytes /= 2;
  }
}

}  // namespace terrace::testing

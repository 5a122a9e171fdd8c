#include "terrace/cli/screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "terrace/config/environment.h"

namespace terrace::cli {
namespace {

// As xterm and all that came after it understand them: the other screen, without a cursor.
constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l";
constexpr std::string_view kLeave = "\x1b[?25h\x1b[?1049l";
constexpr std::string_view kHome = "\x1b[H";
constexpr std::string_view kEndOfLine = "\x1b[K";
constexpr std::string_view kEndOfScreen = "\x1b[J";

winsize size_of_terminal() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) {
    size.ws_row = 24;
    size.ws_col = 80;
  }
  return size;
}

}  // namespace

bool Screen::is_possible() {
  const std::string kind = config::terminal_kind();
  return ::isatty(STDOUT_FILENO) == 1 && !kind.empty() && kind != "dumb";
}

Result<std::unique_ptr<Screen>> Screen::open() {
  std::unique_ptr<Screen> screen(new Screen);
  sigset_t awaited;
  ::sigemptyset(&awaited);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH}) {
    ::sigaddset(&awaited, signal);
  }
  screen->signals_ = UniqueFd(::signalfd(-1, &awaited, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!screen->signals_.is_open()) return fail(Status::from_errno(errno, "signalfd", ""));
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &awaited, &screen->mask_before_); error != 0) {
    return fail(Status::from_errno(error, "sigmask", ""));
  }
  screen->has_modes_ = ::tcgetattr(STDIN_FILENO, &screen->modes_before_) == 0;
  screen->enter();
  return screen;
}

Screen::~Screen() {
  if (!is_entered_) return;
  leave();
  (void)::pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
}

void Screen::enter() {
  is_entered_ = true;
  if (has_modes_) {
    termios modes = modes_before_;
    modes.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    modes.c_cc[VMIN] = 0;
    modes.c_cc[VTIME] = 0;
    (void)::tcsetattr(STDIN_FILENO, TCSADRAIN, &modes);
  }
  write(std::string(kEnter));
}

void Screen::leave() {
  write(std::string(kLeave));
  if (has_modes_) (void)::tcsetattr(STDIN_FILENO, TCSAFLUSH, &modes_before_);
}

void Screen::write(const std::string& bytes) {
  std::string_view left = bytes;
  while (!left.empty() && !is_gone_) {
    const ssize_t wrote = ::write(STDOUT_FILENO, left.data(), left.size());
    if (wrote > 0) {
      left.remove_prefix(static_cast<std::size_t>(wrote));
    } else if (errno == EAGAIN) {  // Somebody made the terminal one that does not wait.
      pollfd entry{STDOUT_FILENO, POLLOUT, 0};
      (void)::poll(&entry, 1, 100);
    } else if (errno != EINTR) {
      is_gone_ = true;
    }
  }
}

std::size_t Screen::rows() const { return size_of_terminal().ws_row; }

std::size_t Screen::columns() const { return size_of_terminal().ws_col; }

void Screen::show(const std::string& text) {
  std::string bytes(kHome);
  std::string_view left = text;
  while (!left.empty()) {
    const std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(left.size(), line.size() + 1));
    bytes += line;
    bytes += kEndOfLine;
    // After the last one a new line would scroll.
    if (!left.empty()) bytes += "\r\n";
  }
  bytes += kEndOfScreen;
  write(bytes);
}

bool Screen::take_signal() {
  signalfd_siginfo told{};
  if (::read(signals_.get(), &told, sizeof told) != static_cast<ssize_t>(sizeof told)) return true;
  switch (static_cast<int>(told.ssi_signo)) {
    case SIGWINCH:
      return true;
    case SIGTSTP:  // Stops as it would have, with the terminal as it was.
      leave();
      (void)::raise(SIGSTOP);
      enter();
      return true;
    case SIGINT:
      return false;
    default:
      ended_by_ = static_cast<int>(told.ssi_signo);
      return false;
  }
}

bool Screen::take_keys() {
  std::array<char, 64> keys{};
  const ssize_t got = ::read(STDIN_FILENO, keys.data(), keys.size());
  if (got <= 0) {
    has_keys_ = got < 0 && (errno == EINTR || errno == EAGAIN);
    return true;
  }
  constexpr char kEndOfInput = '\x04';
  return std::none_of(keys.begin(), keys.begin() + got,
                      [](char key) { return key == 'q' || key == 'Q' || key == kEndOfInput; });
}

bool Screen::wait_for(Nanoseconds limit, const Clock& clock) {
  const Nanoseconds until = clock.now() + limit;
  while (!is_gone_) {
    const Nanoseconds left = until - clock.now();
    if (left <= Nanoseconds(0)) return true;
    std::array<pollfd, 2> entries{
        {{signals_.get(), POLLIN, 0}, {has_keys_ && has_modes_ ? STDIN_FILENO : -1, POLLIN, 0}}};
    const int ready =
        ::poll(entries.data(), entries.size(), static_cast<int>(left / milliseconds(1)) + 1);
    if (ready <= 0) continue;
    if (entries[0].revents != 0) {
      if (!take_signal()) return false;
      return true;  // Shown anew: the size may be another, or the screen.
    }
    if (entries[1].revents != 0 && !take_keys()) return false;
  }
  return false;
}

}  // namespace terrace::cli

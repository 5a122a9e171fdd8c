// write_seeds DIRECTORY: the valid inputs from which the targets of sockets set out, one folder a
// target.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "terrace/attach/foreign_bytes_fixture.h"
#include "terrace/serve/foreign_bytes_fixture.h"

namespace {

bool write_all(const std::filesystem::path& folder, const std::vector<std::string>& seeds) {
  std::filesystem::create_directories(folder);
  for (std::size_t i = 0; i < seeds.size(); ++i) {
    std::ofstream file(folder / std::to_string(i), std::ios::binary);
    if (!(file << seeds[i]).flush()) return false;
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "usage: write_seeds DIRECTORY\n";
    return 2;
  }
  const std::filesystem::path folder = arguments[1];
  const bool is_written =
      write_all(folder / "attach_owner", terrace::attach::OwnerUnderBytes::seeds()) &&
      write_all(folder / "attach_worker", terrace::attach::WorkerUnderBytes::seeds()) &&
      write_all(folder / "admin_server", terrace::serve::ServerUnderBytes::seeds()) &&
      write_all(folder / "admin_client", terrace::serve::ClientUnderBytes::seeds());
  return is_written ? 0 : 1;
}

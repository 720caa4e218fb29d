#include "tests/store/store_fixture.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <random>
#include <stdexcept>

namespace qcache {
namespace {

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

Status make_tile(Env& env, FillingFile& filling, uint32_t tile) {
  const FillingKey& key = filling.key();
  QCACHE_TRY(env.write_at(filling.fd(), bytes(StoreFixture::tile_content(key, tile)), tile * StoreFixture::kTileBytes));
  return filling.mark(tile, StoreFixture::right_mark(key, tile));
}

Result<bool> holds_its_mark(Env& env, const FillingFile& filling, uint32_t tile, const TileMark& mark) {
  std::string read(StoreFixture::tile_content(filling.key(), tile).size(), '\0');
  QCACHE_TRY_ASSIGN(const size_t got, env.read_at(filling.fd(), std::as_writable_bytes(std::span(read)),
                                                  tile * StoreFixture::kTileBytes));
  return got == read.size() && sha256(bytes(read)) == mark.digest;
}

}  // namespace

StoreFixture::StoreFixture(CatalogKind catalog)
    : path_(dir_ / "cache"), fake_catalog_(catalog == CatalogKind::kFake ? std::make_shared<FakeCatalog>() : nullptr) {
  spdlog::set_level(spdlog::level::off);
}

std::shared_ptr<Store> StoreFixture::open(Env& env) const {
  auto directory = CacheDirectory::open(env, path_);
  if (!directory.has_value()) {
    throw std::runtime_error(directory.error().message);
  }
  auto store =
      fake_catalog_ ? Store::open(env, std::move(*directory), fake_catalog_) : Store::open(env, std::move(*directory));
  if (!store.has_value()) {
    throw std::runtime_error(store.error().message);
  }
  return *store;
}

FillingKey StoreFixture::key(uint32_t number, uint8_t recipe, uint64_t size_bytes) {
  FillingKey key;
  key.file = artifact_file_name("/models/m" + std::to_string(number), "int8", 0);
  key.virtual_path = "m" + std::to_string(number) + "/int8/0.bin";
  key.recipe.fill(recipe);
  key.size_bytes = size_bytes;
  key.tile_count = static_cast<uint32_t>((size_bytes + kTileBytes - 1) / kTileBytes);
  return key;
}

std::string StoreFixture::content(const FillingKey& key) {
  std::string out;
  out.reserve(key.size_bytes);
  for (uint32_t tile = 0; out.size() < key.size_bytes; ++tile) {
    out += tile_content(key, tile);
  }
  return out;
}

std::string StoreFixture::tile_content(const FillingKey& key, uint32_t tile) {
  const std::string seed = fmt::format("{} {} {}", base_file_name(key.file), key.recipe[0], tile);
  std::minstd_rand random(static_cast<uint32_t>(std::stoul(md5_hex(seed).substr(0, 8), nullptr, 16)));
  std::string out(std::min(kTileBytes, key.size_bytes - tile * kTileBytes), '\0');
  std::generate(out.begin(), out.end(), [&] { return static_cast<char>(random() & 0xffU); });
  return out;
}

TileMark StoreFixture::right_mark(const FillingKey& key, uint32_t tile) {
  const std::string text = tile_content(key, tile);
  TileMark mark;
  mark.digest = sha256(bytes(text));
  mark.crc.emplace()[0] = crc32(0, bytes(text));
  return mark;
}

Record StoreFixture::draft(const FillingKey& key, int64_t now_ns) {
  Record record;
  record.virtual_path = key.virtual_path;
  record.model_path = "/models/m";
  record.dtype = "int8";
  record.scheme_version = 3;
  record.created_ns = now_ns;
  record.accessed_ns = now_ns;
  return record;
}

Result<uint32_t> StoreFixture::fill(Env& env, FillingFile& filling) {
  uint32_t made = 0;
  for (uint32_t tile = 0; tile < filling.key().tile_count; ++tile) {
    bool right = false;
    if (const auto mark = filling.mark_of(tile)) {
      QCACHE_TRY_ASSIGN(right, holds_its_mark(env, filling, tile, *mark));
    }
    if (!right) {
      QCACHE_TRY(make_tile(env, filling, tile));
      ++made;
    }
  }
  return made;
}

Result<SealedFile> StoreFixture::ensure_sealed(Store& store, const FillingKey& key, uint32_t* made) {
  constexpr int kTries = 200;
  for (int i = 0; i < kTries; ++i) {
    SealedFile sealed;
    QCACHE_TRY_ASSIGN(const SealedState state, store.find_sealed(key.file, key.recipe, sealed));
    if (state == SealedState::kTrusted) {
      return sealed;
    }
    if (state == SealedState::kSuspect) {
      QCACHE_TRY(store.demote(sealed.record.file));
    }
    QCACHE_TRY_ASSIGN(const auto filling, store.open_filling(key));
    if (!filling) {
      continue;
    }
    QCACHE_TRY_ASSIGN(const uint32_t tiles, fill(store.env(), *filling));
    if (made != nullptr) {
      *made += tiles;
    }
    const auto sealed_now = store.seal(*filling, draft(key));
    if (!sealed_now.has_value() && sealed_now.error().kind != ErrorKind::kBusy) {
      return qcache::fail(sealed_now.error());
    }
  }
  return qcache::fail(ErrorKind::kBusy, "the file never came to rest");
}

std::string StoreFixture::bytes_of(int fd) {
  struct ::stat stat {};
  if (::fstat(fd, &stat) != 0) {
    return {};
  }
  std::string out(static_cast<size_t>(stat.st_size), '\0');
  const auto got = Env::posix().read_at(fd, std::as_writable_bytes(std::span(out)), 0);
  return got.has_value() ? out : std::string();
}

bool StoreFixture::exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

void StoreFixture::make_writable(const std::string& path) {
  (void)::chmod(path.c_str(), 0600);
}

bool StoreFixture::was_demoted(Store& store, const Record& record) {
  const auto filling = store.peek_filling(record.file, record.recipe);
  return !exists(store.directory().sealed_path(record.file)) && filling.has_value() && filling->has_value();
}

std::string StoreFixture::unsoundness(Store& store) {
  const auto records = store.catalog().list();
  if (!records.has_value()) {
    return "the catalog cannot be listed: " + records.error().message;
  }
  for (const Record& record : *records) {
    if (was_demoted(store, record)) {
      continue;
    }
    const auto right = store.verify(record);
    if (!right.has_value()) {
      return record.file + " has a record but cannot be read: " + right.error().message;
    }
    if (!*right) {
      return record.file + " is not what its record says";
    }
    FillingKey key;
    key.file = record.file;
    key.recipe = record.recipe;
    key.size_bytes = record.size_bytes;
    if (record.sha256 != sha256(bytes(content(key)))) {
      return record.file + " was recorded with wrong bytes";
    }
    const auto tiles = store.catalog().tile_digests(record.file);
    if (!tiles.has_value() || tiles->size() != record.tile_count) {
      return record.file + " has no tile digests";
    }
    for (uint32_t tile = 0; tile < record.tile_count; ++tile) {
      if ((*tiles)[tile] != right_mark(key, tile).digest) {
        return record.file + " has a wrong tile digest";
      }
    }
  }
  return {};
}

pid_t start_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child < 0) {
    throw std::runtime_error("cannot fork");
  }
  if (child > 0) {
    return child;
  }
  int status = 1;
  try {
    status = body();
  } catch (const std::exception& e) {
    ::fprintf(stderr, "child: %s\n", e.what());
  }
  ::_exit(status);
}

int wait_for_child(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) {
      throw std::runtime_error("cannot wait for a child");
    }
  }
  constexpr int kSignalBase = 128;
  return WIFSIGNALED(status) ? kSignalBase + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace qcache

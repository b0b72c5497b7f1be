//! The folder a server lives in: its data, its configuration, its log.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Error, guardian};

/// A folder that is removed when this is dropped, unless the caller named it.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Home {
    /// Opens the named folder, creating it when needed, or makes a temporary one, which is gone with this process,
    /// however that ends.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn open(named: Option<PathBuf>, server: &str) -> Result<Self, Error> {
        let Some(path) = named else {
            let folder = tempfile::Builder::new()
                .prefix(&format!("{server}-"))
                .tempdir_in(guardian::scratch()?)
                .map_err(Error::io("creating a temporary folder"))?;
            return Ok(Self {
                path: folder.path().to_path_buf(),
                _temporary: Some(folder),
            });
        };
        fs::create_dir_all(&path).map_err(Error::io(format!("creating {}", path.display())))?;
        // The servers' own working folders differ, so what they are given has to be absolute.
        let path = path
            .canonicalize()
            .map_err(Error::io(format!("resolving {}", path.display())))?;
        Ok(Self {
            path,
            _temporary: None,
        })
    }

    /// Absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file or folder in here.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file in here and returns its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf, Error> {
        let path = self.join(name);
        fs::write(&path, content).map_err(Error::io(format!("writing {}", path.display())))?;
        Ok(path)
    }
}

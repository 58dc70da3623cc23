//! Takes a device away from vfio-pci for the length of a test.

use std::path::Path;

use super::place::FUNCTIONS;

/// A function that another driver has. Dropping this gives it back to vfio-pci, however the test ends.
#[derive(Debug)]
pub struct Driver<'a>(&'a str);

impl<'a> Driver<'a> {
    /// Gives the function to this driver.
    ///
    /// # Panics
    /// If there is no such function, or the process may not do it.
    #[must_use]
    pub fn set(address: &'a str, driver: &str) -> Self {
        let this = Self(address);
        this.bind(driver);
        this
    }

    fn bind(&self, driver: &str) {
        let device = Path::new(FUNCTIONS).join(self.0);
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        write(&device.join("driver_override"), driver);
        if device.join("driver").exists() {
            write(&device.join("driver/unbind"), self.0);
        }
        write(Path::new("/sys/bus/pci/drivers_probe"), self.0);
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.bind("vfio-pci");
    }
}

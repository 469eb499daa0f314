//! What Kubernetes does, as far as an operator relies on it. Each test runs on the embedded API and, when it
//! is asked for, on a real API server: where they differ, the embedded one is wrong.
//!
//! No test needs a kubelet: pods are bound to a node that has none, and the test says what became of them
//! ([`place::Place::starts`]). All but `jobs`, `evictions` and a few on deletion need no more than
//! kube-apiserver; these also need kube-controller-manager.

mod access;
mod admission;
mod crds;
mod custom;
mod deletion;
mod evictions;
mod jobs;
mod lists;
mod nodes;
mod place;
mod session;
mod watches;
mod writes;

/// Registers tests twice: on the embedded API, and, ignored, on the cluster in `KUBECONFIG`.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $test() {
                crate::kubernetes::place::embedded(super::$test).await;
            })+
        }

        mod cluster {
            $(#[tokio::test]
            #[ignore = "for the cluster in KUBECONFIG"]
            async fn $test() {
                crate::kubernetes::place::cluster(super::$test).await;
            })+
        }
    };
}

/// Registers tests of what the embedded API does not imitate, and the operator meets all the same.
macro_rules! on_cluster {
    ($($test:ident),+ $(,)?) => {
        mod cluster_only {
            $(#[tokio::test]
            #[ignore = "for the cluster in KUBECONFIG"]
            async fn $test() {
                crate::kubernetes::place::cluster(super::$test).await;
            })+
        }
    };
}

use on_both;
use on_cluster;

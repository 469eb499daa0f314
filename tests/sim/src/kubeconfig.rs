//! Kubeconfig files.

/// A kubeconfig of one user. The token is in it for clients that send it over plain HTTP; kubectl does not.
pub fn text(server: &str, user: &str, token: &str, namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: sim\n\
         clusters:\n- name: sim\n  cluster:\n    server: {server}\n\
         users:\n- name: {user}\n  user:\n    token: {token}\n\
         contexts:\n- name: sim\n  context:\n    cluster: sim\n    user: {user}\n    namespace: {namespace}\n"
    )
}

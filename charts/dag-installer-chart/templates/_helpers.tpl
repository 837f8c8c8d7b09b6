{{/* Which platform this is: it is told by the version that the platform sets. */}}
{{- define "dag-installer.generation" -}}
{{- if .Values.global.kaapana_build_version -}}
0.6
{{- else if .Values.global.platform_version -}}
0.1
{{- else -}}
{{- fail "Neither global.kaapana_build_version (Kaapana 0.6) nor global.platform_version (0.1) is set. Install the chart through the platform's extension page, or pass one with --set-string." -}}
{{- end -}}
{{- end -}}

{{- define "dag-installer.image-name" -}}
{{- required "global.image is not set. Name the DAG image in the workflow chart's values.yaml." .Values.global.image -}}
{{- end -}}

{{- define "dag-installer.registry" -}}
{{- $registry := .Values.global.custom_registry_url | default .Values.global.registry_url -}}
{{- required "global.registry_url is not set. Install the chart through the platform's extension page, or pass it with --set-string." $registry | trimPrefix "https://" | trimPrefix "http://" | trimSuffix "/" -}}
{{- end -}}

{{- define "dag-installer.tag" -}}
{{- if eq (include "dag-installer.generation" .) "0.6" -}}
{{- .Values.global.kaapana_build_version -}}
{{- else -}}
{{- $version := required "global.version is not set. Kaapana 0.1 tags the DAG image with it: set it in the workflow chart's values.yaml." .Values.global.version -}}
{{- printf "%s_%v__%v" (.Values.global.platform_abbr | default "kp") .Values.global.platform_version $version -}}
{{- end -}}
{{- end -}}

{{- define "dag-installer.reference" -}}
{{- printf "%s/%s:%s" (include "dag-installer.registry" .) (include "dag-installer.image-name" .) (include "dag-installer.tag" .) -}}
{{- end -}}

{{- define "dag-installer.namespace" -}}
{{- if eq (include "dag-installer.generation" .) "0.6" -}}
{{- required "global.services_namespace is not set. Airflow's volumes are in that namespace: pass it with --set-string." .Values.global.services_namespace -}}
{{- else -}}
{{- .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{/* A Job cannot be changed: an upgrade makes another one. */}}
{{- define "dag-installer.job-name" -}}
{{- include "dag-installer.image-name" . -}}
{{- if gt (int .Release.Revision) 1 }}-{{ .Release.Revision }}{{ end -}}
{{- end -}}

{{- define "dag-installer.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{- define "dag-installer.labels" -}}
{{ include "dag-installer.selector" . }}
app.kubernetes.io/component: {{ include "dag-installer.image-name" . | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* The pod's metadata and spec. Call with a dict of root, action (copy, remove, prefetch) and restart. */}}
{{- define "dag-installer.pod" -}}
{{- $root := .root -}}
{{- $global := $root.Values.global -}}
{{- $generation := include "dag-installer.generation" $root -}}
metadata:
  labels:
    {{- include "dag-installer.labels" $root | nindent 4 }}
    {{- with $root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  restartPolicy: {{ .restart }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  imagePullSecrets:
    - name: registry-secret
  securityContext:
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: {{ .action }}
      image: {{ include "dag-installer.reference" $root | quote }}
      {{- if eq .action "remove" }}
      imagePullPolicy: IfNotPresent
      {{- else if eq $generation "0.6" }}
      imagePullPolicy: {{ $global.pull_policy_images | default "IfNotPresent" }}
      {{- else }}
      imagePullPolicy: {{ $global.pull_policy_jobs | default "IfNotPresent" }}
      {{- end }}
      env:
        - name: ACTION
          value: {{ .action }}
        {{- if eq $generation "0.6" }}
        - name: ADMIN_NAMESPACE
          value: {{ required "global.admin_namespace is not set. The installer asks the service there to pull the images: pass it with --set-string." $global.admin_namespace | quote }}
        - name: SERVICES_NAMESPACE
          value: {{ include "dag-installer.namespace" $root | quote }}
        - name: KAAPANA_BUILD_VERSION
          value: {{ $global.kaapana_build_version | quote }}
        - name: KAAPANA_DEFAULT_REGISTRY
          value: {{ $global.registry_url | default (include "dag-installer.registry" $root) | trimPrefix "https://" | trimPrefix "http://" | trimSuffix "/" | quote }}
        {{- end }}
      securityContext:
        runAsUser: {{ int $root.Values.runAsUser }}
        runAsNonRoot: {{ gt (int $root.Values.runAsUser) 0 }}
        allowPrivilegeEscalation: false
        capabilities:
          drop: ["ALL"]
          {{- if eq (int $root.Values.runAsUser) 0 }}
          add: ["DAC_OVERRIDE", "FOWNER"]
          {{- end }}
      resources:
        {{- toYaml $root.Values.resources | nindent 8 }}
      {{- if ne .action "prefetch" }}
      volumeMounts:
        {{- if eq $generation "0.6" }}
        - name: dags
          mountPath: /kaapana/mounted/workflows/dags
        - name: plugins
          mountPath: /kaapana/mounted/workflows/plugins
        {{- else }}
        - name: workflows
          mountPath: /workflows
        {{- end }}
      {{- end }}
  {{- if ne .action "prefetch" }}
  volumes:
    {{- if eq $generation "0.6" }}
    - name: dags
      persistentVolumeClaim:
        claimName: dags-pv-claim
    - name: plugins
      persistentVolumeClaim:
        claimName: af-plugins-pv-claim
    {{- else }}
    - name: workflows
      hostPath:
        path: {{ required "global.fast_data_dir is not set. The DAGs go to its subdirectory workflows: pass it with --set-string." $global.fast_data_dir | trimSuffix "/" | printf "%s/workflows" | quote }}
        type: DirectoryOrCreate
    {{- end }}
  {{- end }}
{{- end -}}
